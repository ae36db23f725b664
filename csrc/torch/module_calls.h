// What stands for torch.nn.Module.__call__ while somebody watches the modules of the process: bound to Python.
#pragma once

#include <pybind11/pybind11.h>

namespace flopcuda {

void bind_module_calls(pybind11::module_& module);

}  // namespace flopcuda
