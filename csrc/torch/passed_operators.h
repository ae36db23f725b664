// Operators without products, which run below a capture's dispatch mode without its being shown them: to call it takes
// Python longer than many of them take.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <vector>

#include "torch/progress.h"

namespace flopcuda {

class PassedOperators {
 public:
  // While it lives, `mode` is shown none of these operators, by full names; `progress` is told of them. Only where the
  // mode is a thread's only one and all tensors are plain: others see all they ever saw.
  PassedOperators(const pybind11::object& mode, std::shared_ptr<Progress> progress,
                  const std::vector<std::string>& names);
  ~PassedOperators();
  PassedOperators(const PassedOperators&) = delete;
  PassedOperators& operator=(const PassedOperators&) = delete;

 private:
  PyObject* const mode_;
  std::shared_ptr<void> kernels_;  // of all that live, at torch's key for modes
};

void bind_passed_operators(pybind11::module_& module);

}  // namespace flopcuda
