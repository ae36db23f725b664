// Modules that run without a capture's dispatch mode looking on, as it would see nothing that it looks for: in a
// thread, one at a time.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <utility>
#include <vector>

namespace flopcuda {

// Of a call, as Python's vectorcall has them, those by name behind the others.
struct Arguments {
  PyObject* const* values;
  Py_ssize_t count;  // without those by name
  PyObject* names;   // a tuple, or null
};

class UnseenModules {
 public:
  // methods: by type of module, the functions by the names of its methods that are all code to run in it.
  UnseenModules(pybind11::object mode, pybind11::dict methods);

  // A module is called; whether it runs unseen, until see_again().
  bool begin(PyObject* module, const Arguments& arguments) const;

  // Ends what runs unseen in this thread, if anything does.
  void see_again() const;

 private:
  bool may_pass(PyObject* module, const Arguments& arguments) const;
  bool is_innermost() const;
  bool has_hooks(PyObject* module) const;

  pybind11::object mode_;
  pybind11::dict methods_;
  pybind11::str compiled_name_{"_compiled_call_impl"};  // of a module's attributes, as are these
  std::vector<pybind11::str> hook_names_;
  std::vector<pybind11::object> hooks_of_all_;
};

}  // namespace flopcuda
