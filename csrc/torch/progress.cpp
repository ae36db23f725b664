// See progress.h. Asked in Python, where each node gets an object, this takes as long as a small operator.
#include "torch/progress.h"

#include <ATen/SequenceNumber.h>
#include <ATen/core/grad_mode.h>
#include <pybind11/stl.h>
#include <torch/csrc/autograd/function.h>

#include <atomic>
#include <memory>

#include "torch/libraries.h"

namespace py = pybind11;

namespace flopcuda {
namespace {

std::atomic<uint64_t> next_id = 0;

std::optional<uint64_t> current_node() {
  const auto node = torch::autograd::get_current_node();
  if (!node) return std::nullopt;
  return node->sequence_nr();
}

py::object pass_on(Progress& progress, const py::object& function, const py::tuple& arguments,
                   const py::object& options) {
  const PassingOperator passing(progress);
  auto result = py::reinterpret_steal<py::object>(
      PyObject_Call(function.ptr(), arguments.ptr(), options.is_none() ? nullptr : options.ptr()));
  if (!result) throw py::error_already_set();
  return result;
}

}  // namespace

Progress::Progress() : id_(next_id++) {}

Progress::~Progress() { states().erase(id_); }

std::unordered_map<uint64_t, Progress::State>& Progress::states() {
  thread_local std::unordered_map<uint64_t, State> states;
  return states;
}

Progress::State& Progress::here() const {
  const auto [place, is_new] = states().try_emplace(id_);
  State& state = place->second;
  if (is_new) state.last = state.mark = at::sequence_number::peek();
  return state;
}

void Progress::module_changes() {
  State& state = here();
  state.mark = state.last = at::sequence_number::peek();
}

void Progress::operator_begins() {
  State& state = here();
  const std::optional<uint64_t> context = current_node();
  if (context == state.context) return;
  state.context = context;
  state.mark = state.last;
}

void Progress::operator_ends() { here().last = at::sequence_number::peek(); }

std::pair<uint64_t, uint64_t> Progress::take_nodes() {
  State& state = here();
  const uint64_t first = state.mark;
  state.mark = at::sequence_number::peek();
  return {first, state.mark};
}

PassingOperator::PassingOperator(Progress& progress)
    : told_(at::GradMode::is_enabled() || current_node() ? &progress : nullptr) {
  libraries::let_compute();
  if (told_) told_->operator_begins();
}

PassingOperator::~PassingOperator() {
  if (told_) told_->operator_ends();
  libraries::keep_out();
}

void bind_progress(py::module_& module) {
  py::class_<Progress, std::shared_ptr<Progress>>(
      module, "Progress",
      "How far threads have come in the sequence numbers of autograd's nodes; of the one that calls.")
      .def(py::init<>())
      .def("module_changes", &Progress::module_changes, "A module begins or ends.")
      .def("operator_begins", &Progress::operator_begins,
           "An operator begins, whose own nodes are made already, in a node of the backward pass or in none.")
      .def("operator_ends", &Progress::operator_ends, "It ends, and what is made from now on belongs to another one.")
      .def("take_nodes", &Progress::take_nodes,
           "The first of the nodes that belong to the operator that runs, and the one behind the last. No other one "
           "gets them.")
      .def("pass_on", &pass_on,
           "Run an operator that has no products, as the original model does, and give its result.",
           py::arg("function"), py::arg("arguments"), py::arg("options"));
}

}  // namespace flopcuda
