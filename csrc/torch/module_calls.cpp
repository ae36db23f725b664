// See module_calls.h. A module that may run unseen goes straight to torch's own call, any other to a Python function
// that tells the watchers.
#include "torch/module_calls.h"

#include <c10/util/SmallVector.h>

#include <utility>

#include "torch/unseen_modules.h"

namespace py = pybind11;

namespace flopcuda {
namespace {

// Guarded, like all that is Python's, by its lock; never destroyed, since Python may have gone when they would be.
struct Calls {
  py::object original;
  py::object watched;  // a function that tells watchers, or None
  py::object unseen;   // the UnseenModules of the only watcher, or None
};
Calls& calls() {
  static auto* const calls = new Calls;
  return *calls;
}

// A function with its object before the arguments.
PyObject* call_method(const py::object& function, PyObject* self, const Arguments& arguments) {
  const Py_ssize_t by_name = arguments.names ? PyTuple_GET_SIZE(arguments.names) : 0;
  c10::SmallVector<PyObject*, 8> values{nullptr, self};  // a place in front, for Python to use
  values.append(arguments.values, arguments.values + arguments.count + by_name);
  return PyObject_Vectorcall(function.ptr(), values.data() + 1,
                             static_cast<size_t>(arguments.count + 1) | PY_VECTORCALL_ARGUMENTS_OFFSET,
                             arguments.names);
}

PyObject* call_module(PyObject* self, PyObject* const* values, Py_ssize_t count, PyObject* names) {
  const Arguments arguments{values, count, names};
  try {
    const py::object function = calls().watched.is_none() ? calls().original : calls().watched;
    const py::object unseen = calls().unseen;  // kept as long as this call takes
    const UnseenModules* const modules = unseen.is_none() ? nullptr : unseen.cast<const UnseenModules*>();
    if (!modules || !modules->begin(self, arguments)) return call_method(function, self, arguments);
    PyObject* const result = call_method(calls().original, self, arguments);
    modules->see_again();
    return result;
  } catch (py::error_already_set& error) {
    error.restore();
    return nullptr;
  }
}

PyMethodDef call_definition{"__call__", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_module)),
                            METH_FASTCALL | METH_KEYWORDS, "Call a module, and tell whoever watches."};

py::object module_call(py::object original) {
  calls() = {std::move(original), py::none(), py::none()};
  return py::reinterpret_steal<py::object>(PyDescr_NewMethod(&PyBaseObject_Type, &call_definition));
}

void watch_calls(py::object watched, py::object unseen) {
  calls().watched = std::move(watched);
  calls().unseen = std::move(unseen);
}

}  // namespace

void bind_module_calls(py::module_& module) {
  py::class_<UnseenModules>(
      module, "UnseenModules",
      "Lets modules run without a dispatch mode looking on, and lets libraries compute in them: those of a type among "
      "methods, where the functions that stand there by their names are all code that runs.")
      .def(py::init<py::object, py::dict>(), py::arg("mode"), py::arg("methods"))
      .def("see_again", &UnseenModules::see_again, "End what runs unseen in this thread, if anything does.");
  module.def("module_call", &module_call,
             "What is to stand for torch.nn.Module.__call__, whose function is original. Nobody watches.",
             py::arg("original"));
  module.def("watch_calls", &watch_calls,
             "From now on a module_call() is one of watched, and of original if that is None, or for the modules that "
             "unseen lets pass, an UnseenModules or None.",
             py::arg("watched"), py::arg("unseen"));
}

}  // namespace flopcuda
