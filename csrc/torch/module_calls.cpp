// See module_calls.h. A module that may run unseen goes straight to torch's own call, any other to a Python function
// that tells the watchers.
#include "torch/module_calls.h"

#include <c10/util/SmallVector.h>
#include <structmember.h>

#include <utility>

#include "torch/unseen_modules.h"

namespace py = pybind11;

namespace flopcuda {
namespace {

struct Replacement;

// Who is told. Guarded, like all that is Python's, by its lock; never destroyed, since Python may have gone when it
// would be.
struct Watch {
  const Replacement* newest = nullptr;  // which alone tells: others may call it, or be called by it
  py::object watched;                   // a function that tells watchers, or None
  py::object unseen;                    // the UnseenModules of the only watcher, or None
};
Watch& watch() {
  static auto* const watch = new Watch{nullptr, py::none(), py::none()};
  return *watch;
}

// A method, in a class, that stands for another one.
struct Replacement {
  PyObject_HEAD vectorcallfunc vectorcall;
  PyObject* original;
};

// A function with its object before the arguments.
PyObject* call_method(PyObject* function, PyObject* self, const Arguments& arguments) {
  const Py_ssize_t by_name = arguments.names ? PyTuple_GET_SIZE(arguments.names) : 0;
  c10::SmallVector<PyObject*, 8> values{nullptr, self};  // a place in front, for Python to use
  values.append(arguments.values, arguments.values + arguments.count + by_name);
  return PyObject_Vectorcall(function, values.data() + 1,
                             static_cast<size_t>(arguments.count + 1) | PY_VECTORCALL_ARGUMENTS_OFFSET,
                             arguments.names);
}

PyObject* call_module(PyObject* callable, PyObject* const* values, size_t flags, PyObject* names) {
  const auto* const replacement = reinterpret_cast<const Replacement*>(callable);
  const Py_ssize_t count = PyVectorcall_NARGS(flags);
  if (count == 0) {
    PyErr_SetString(PyExc_TypeError, "torch.nn.Module.__call__ needs a module");
    return nullptr;
  }
  PyObject* const self = values[0];
  const Arguments arguments{values + 1, count - 1, names};
  try {
    // All kept as long as this call takes.
    const py::object original = py::reinterpret_borrow<py::object>(replacement->original);
    if (replacement != watch().newest) return call_method(original.ptr(), self, arguments);
    const py::object watched = watch().watched, unseen = watch().unseen;
    const UnseenModules* const modules = unseen.is_none() ? nullptr : unseen.cast<const UnseenModules*>();
    if (!modules || !modules->begin(self, arguments)) {
      return call_method(watched.is_none() ? original.ptr() : watched.ptr(), self, arguments);
    }
    PyObject* const result = call_method(original.ptr(), self, arguments);
    modules->see_again();
    return result;
  } catch (py::error_already_set& error) {
    error.restore();
    return nullptr;
  }
}

PyObject* bind(PyObject* callable, PyObject* module, PyObject*) {
  return module ? PyMethod_New(callable, module) : Py_NewRef(callable);
}

void destroy(PyObject* callable) {
  PyTypeObject* const type = Py_TYPE(callable);
  if (watch().newest == reinterpret_cast<Replacement*>(callable)) watch().newest = nullptr;
  Py_DECREF(reinterpret_cast<Replacement*>(callable)->original);
  type->tp_free(callable);
  Py_DECREF(type);
}

PyTypeObject* replacement_type() {
  static PyMemberDef members[] = {
      {"__vectorcalloffset__", T_PYSSIZET, offsetof(Replacement, vectorcall), READONLY, nullptr},
      {"__wrapped__", T_OBJECT, offsetof(Replacement, original), READONLY, nullptr},  // for its signature
      {nullptr, 0, 0, 0, nullptr}};
  static PyType_Slot slots[] = {{Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
                                {Py_tp_descr_get, reinterpret_cast<void*>(bind)},
                                {Py_tp_dealloc, reinterpret_cast<void*>(destroy)},
                                {Py_tp_members, members},
                                {0, nullptr}};
  static PyType_Spec spec{"flopcuda._C.ModuleCall", sizeof(Replacement), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR, slots};
  static auto* const type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
  if (!type) throw py::error_already_set();
  return type;
}

py::object module_call(const py::object& original) {
  auto* const replacement = PyObject_New(Replacement, replacement_type());
  if (!replacement) throw py::error_already_set();
  replacement->vectorcall = call_module;
  replacement->original = Py_NewRef(original.ptr());
  watch() = {replacement, py::none(), py::none()};
  return py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(replacement));
}

void watch_calls(py::object watched, py::object unseen) {
  watch().watched = std::move(watched);
  watch().unseen = std::move(unseen);
}

}  // namespace

void bind_module_calls(py::module_& module) {
  py::class_<UnseenModules>(
      module, "UnseenModules",
      "Lets modules run without a dispatch mode looking on, and lets libraries compute in them: those of a type among "
      "methods, where the functions that stand there by their names are all code that runs.")
      .def(py::init<py::object, py::dict>(), py::arg("mode"), py::arg("methods"))
      .def("see_again", &UnseenModules::see_again, "End what runs unseen in this thread, if anything does.");
  module.def(
      "module_call", &module_call,
      "What is to stand for torch.nn.Module.__call__, which is original. Nobody watches; earlier ones tell nobody now.",
      py::arg("original"));
  module.def("watch_calls", &watch_calls,
             "From now on a module_call() is one of watched, and of original if that is None, or for the modules that "
             "unseen lets pass, an UnseenModules or None.",
             py::arg("watched"), py::arg("unseen"));
}

}  // namespace flopcuda
