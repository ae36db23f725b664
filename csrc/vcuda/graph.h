// Graphs: operations and what each has to wait for.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda_api.h"
#include "device.h"
#include "operations.h"

namespace flopcuda::vcuda {

// Guards all graphs, executable ones too, and everything about captures. Recursive: functions that hold it call one
// another.
std::recursive_mutex& graph_mutex();
using GraphLock = std::lock_guard<std::recursive_mutex>;

// Something of the caller's that graphs keep alive; destroyed by a function of the caller's with the last reference,
// which must not go while graph_mutex() is held: that function may wait for a thread that is about to take it.
class UserObject {
 public:
  UserObject(void* object, cudaHostFn_t destroy) : object_(object), destroy_(destroy) {}
  ~UserObject() { destroy_(object_); }
  UserObject(const UserObject&) = delete;
  UserObject& operator=(const UserObject&) = delete;

 private:
  void* object_;
  cudaHostFn_t destroy_;
};

struct Node {
  Operation operation;
  Device* device = nullptr;
  Graph* graph = nullptr;
  const Node* original = nullptr;  // of a clone
  bool enabled = true;
  std::vector<Node*> dependencies;
  std::vector<Node*> dependents;
  std::vector<void*> arguments;  // of a kernel: where they lie in its parameters, for who asks
};

struct Graph {
  std::vector<std::unique_ptr<Node>> nodes;
  std::vector<std::shared_ptr<UserObject>> user_objects;  // one entry for each reference

  Graph() = default;
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  Node& add(Operation operation, Device& device, const std::vector<Node*>& dependencies);
  void remove(Node& node);
  // Nodes so that each comes after those it depends on; fewer than there are if some depend on themselves.
  std::vector<Node*> order() const;
  // A copy with the same order of nodes. Child graphs are copied, too.
  std::shared_ptr<Graph> clone() const;
  Node* find_clone_of(const Node& original) const;
};

bool add_dependency(Node& node, Node& dependency);     // false if it was there
bool remove_dependency(Node& node, Node& dependency);  // false if there was none
bool is_reachable(const Node& from_its_dependencies, const Node& node);

// The node of a handle; an Error if it is in no graph.
Node& node_of(cudaGraphNode_t handle);
std::vector<Node*> nodes_of(const cudaGraphNode_t* handles, size_t count);
inline cudaGraphNode_t handle_of(const Node& node) {
  return reinterpret_cast<cudaGraphNode_t>(const_cast<Node*>(&node));
}

// Executes every node in order, each on its own device.
void run(const Graph& graph);

// Handles.
std::shared_ptr<Graph> graph_of(cudaGraph_t handle);
cudaGraph_t add_handle(std::shared_ptr<Graph> graph);
void remove_handle(cudaGraph_t handle);

}  // namespace flopcuda::vcuda
