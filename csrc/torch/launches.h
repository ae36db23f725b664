// The counted operators as a session calls them: bound to Python one by one.
#pragma once

#include <pybind11/pybind11.h>

namespace flopcuda {

void bind_launches(pybind11::module_& module);

}  // namespace flopcuda
