// See unseen_modules.h. Asked in Python, all this takes longer than many a module that it is asked of.
#include "torch/unseen_modules.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/SavedTensorHooks.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/PyInterpreter.h>
#include <torch/csrc/autograd/forward_grad.h>
#include <torch/csrc/autograd/python_variable.h>

#include <memory>

#include "torch/libraries.h"

namespace py = pybind11;

namespace flopcuda {
namespace {

using ModeStack = c10::impl::TorchDispatchModeTLS;

// Who looks away in this thread, and from what mode.
struct Unseen {
  const UnseenModules* owner = nullptr;
  std::shared_ptr<c10::impl::PyObject_TorchDispatchMode> mode;
};
thread_local Unseen unseen;

py::object attribute_of(PyObject* object, PyObject* name) {
  auto value = py::reinterpret_steal<py::object>(PyObject_GetAttr(object, name));
  if (!value) throw py::error_already_set();
  return value;
}

bool is_true(PyObject* object) {
  const int truth = PyObject_IsTrue(object);
  if (truth < 0) throw py::error_already_set();
  return truth == 1;
}

// Whether methods, functions by name, are those that a module runs, and not others of that name.
bool has_methods(PyObject* module, PyObject* methods) {
  PyObject *name = nullptr, *function = nullptr;
  for (Py_ssize_t position = 0; PyDict_Next(methods, &position, &name, &function);) {
    const py::object method = attribute_of(module, name);
    if (!PyMethod_Check(method.ptr()) || PyMethod_GET_FUNCTION(method.ptr()) != function) return false;
  }
  return true;
}

// No subclass, which may have code of its own.
bool are_one_tensor(const Arguments& arguments) {
  return arguments.count == 1 && !arguments.names && THPVariable_CheckExact(arguments.values[0]);
}

// Whether transforms, other modes or hooks have code of their own run with every operator.
bool is_looked_at_by_others() {
  return ModeStack::stack_len() != 1 || at::impl::PythonTorchFunctionTLS::stack_len() != 0 ||
         c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode) ||
         torch::autograd::ForwardADLevel::try_get_by_idx(0) != nullptr ||
         at::SavedTensorDefaultHooks::get_hooks(true).has_value();
}

}  // namespace

UnseenModules::UnseenModules(py::object mode, py::dict methods) : mode_(std::move(mode)), methods_(std::move(methods)) {
  const py::module_ torchs = py::module_::import("torch.nn.modules.module");
  for (const std::string name : {"_forward_pre_hooks", "_forward_hooks"}) {
    hook_names_.emplace_back(name);
    hooks_of_all_.push_back(torchs.attr(("_global" + name).c_str()));
  }
}

bool UnseenModules::begin(PyObject* module, const Arguments& arguments) const {
  see_again();
  if (!may_pass(module, arguments)) return false;
  unseen = {this, ModeStack::pop_stack()};
  libraries::let_compute();
  return true;
}

void UnseenModules::see_again() const {
  if (unseen.owner != this) return;
  libraries::keep_out();
  ModeStack::push_non_infra_mode_onto_stack(std::move(unseen.mode));
  unseen = {};
}

bool UnseenModules::may_pass(PyObject* module, const Arguments& arguments) const {
  PyObject* const methods = PyDict_GetItem(methods_.ptr(), reinterpret_cast<PyObject*>(Py_TYPE(module)));
  return methods && are_one_tensor(arguments) && !is_looked_at_by_others() && is_innermost() && !has_hooks(module) &&
         has_methods(module, methods) && attribute_of(module, compiled_name_.ptr()).is_none();
}

bool UnseenModules::is_innermost() const { return ModeStack::get_stack_at(0)->ptr(getPyInterpreter()) == mode_.ptr(); }

bool UnseenModules::has_hooks(PyObject* module) const {
  for (size_t i = 0; i < hook_names_.size(); ++i) {
    if (is_true(hooks_of_all_[i].ptr()) || is_true(attribute_of(module, hook_names_[i].ptr()).ptr())) return true;
  }
  return false;
}

}  // namespace flopcuda
