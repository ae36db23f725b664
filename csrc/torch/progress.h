// How far threads have come in the sequence numbers of autograd's nodes, by which it is known what made a node.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <utility>

namespace flopcuda {

// Under torch.func's transforms an operator has a node on each level, and other nodes between them. An operator's nodes
// are therefore all that were made since the module or the node of the backward pass began in which it runs, but for
// those of operators before it. All of this is of the thread that calls.
class Progress {
 public:
  Progress();
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // A module begins or ends.
  void module_changes();

  // An operator begins, whose own nodes are made already, in a node of the backward pass or in none.
  void operator_begins();

  // It ends, and what is made from now on belongs to another one.
  void operator_ends();

  // The first of the nodes that belong to the operator that runs, and the one behind the last. No other one gets them.
  std::pair<uint64_t, uint64_t> take_nodes();

 private:
  struct State {
    std::optional<uint64_t> context;  // the node in which the thread runs
    uint64_t last, mark;
  };

  static std::unordered_map<uint64_t, State>& states();  // of this thread, by id
  State& here() const;

  const uint64_t id_;
};

// While it lives, an operator runs that has no products, as in the original model.
class PassingOperator {
 public:
  explicit PassingOperator(Progress& progress);
  ~PassingOperator();
  PassingOperator(const PassingOperator&) = delete;
  PassingOperator& operator=(const PassingOperator&) = delete;

 private:
  Progress* const told_;  // null if no nodes can be made, which would belong to somebody
};

void bind_progress(pybind11::module_& module);

}  // namespace flopcuda
