// See graph.h.
#include "graph.h"

#include <algorithm>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "error.h"
#include "handles.h"

namespace flopcuda::vcuda {
namespace {

HandleTable<Graph>& graphs() { return immortal<HandleTable<Graph>>(); }
std::unordered_set<const Node*>& live_nodes() { return immortal<std::unordered_set<const Node*>>(); }

// Its own, and what cudaGraphChildGraphNodeGetGraph gave out.
void forget_handles_of(const Node& node) {
  live_nodes().erase(&node);
  if (const auto* child = std::get_if<ChildGraph>(&node.operation)) graphs().forget(child->graph.get());
}

bool erase_from(std::vector<Node*>& list, const Node& node) {
  const auto found = std::find(list.begin(), list.end(), &node);
  if (found == list.end()) return false;
  list.erase(found);
  return true;
}

}  // namespace

std::recursive_mutex& graph_mutex() { return immortal<std::recursive_mutex>(); }

Graph::~Graph() {
  const GraphLock lock(graph_mutex());
  for (const auto& node : nodes) forget_handles_of(*node);
}

Node& Graph::add(Operation operation, Device& device, const std::vector<Node*>& dependencies) {
  const GraphLock lock(graph_mutex());
  auto made = std::make_unique<Node>();
  made->operation = std::move(operation);
  made->device = &device;
  made->graph = this;
  Node& node = *made;
  live_nodes().insert(&node);
  nodes.push_back(std::move(made));
  for (Node* dependency : dependencies) add_dependency(node, *dependency);
  return node;
}

void Graph::remove(Node& node) {
  const GraphLock lock(graph_mutex());
  for (Node* dependency : node.dependencies) erase_from(dependency->dependents, node);
  for (Node* dependent : node.dependents) erase_from(dependent->dependencies, node);
  forget_handles_of(node);
  const auto is_it = [&](const std::unique_ptr<Node>& entry) { return entry.get() == &node; };
  nodes.erase(std::find_if(nodes.begin(), nodes.end(), is_it));
}

std::vector<Node*> Graph::order() const {
  const GraphLock lock(graph_mutex());
  std::unordered_map<const Node*, size_t> open;
  std::vector<Node*> result;
  for (const auto& node : nodes) {
    open[node.get()] = node->dependencies.size();
    if (node->dependencies.empty()) result.push_back(node.get());
  }
  for (size_t i = 0; i < result.size(); ++i) {
    for (Node* dependent : result[i]->dependents) {
      if (--open[dependent] == 0) result.push_back(dependent);
    }
  }
  return result;
}

std::shared_ptr<Graph> Graph::clone() const {
  const GraphLock lock(graph_mutex());
  auto copy = std::make_shared<Graph>();
  std::unordered_map<const Node*, Node*> copy_of;
  for (const auto& node : nodes) {
    Node& made = copy->add(node->operation, *node->device, {});
    made.original = node.get();
    made.enabled = node->enabled;
    copy_of[node.get()] = &made;
    if (auto* child = std::get_if<ChildGraph>(&made.operation)) child->graph = child->graph->clone();
  }
  for (const auto& node : nodes) {
    for (Node* dependency : node->dependencies) add_dependency(*copy_of[node.get()], *copy_of[dependency]);
  }
  copy->user_objects = user_objects;
  return copy;
}

Node* Graph::find_clone_of(const Node& original) const {
  for (const auto& node : nodes) {
    if (node->original == &original) return node.get();
  }
  return nullptr;
}

bool add_dependency(Node& node, Node& dependency) {
  require(node.graph == dependency.graph && &node != &dependency, cudaErrorInvalidValue);
  const auto found = std::find(node.dependencies.begin(), node.dependencies.end(), &dependency);
  if (found != node.dependencies.end()) return false;
  node.dependencies.push_back(&dependency);
  dependency.dependents.push_back(&node);
  return true;
}

bool remove_dependency(Node& node, Node& dependency) {
  return erase_from(node.dependencies, dependency) && erase_from(dependency.dependents, node);
}

bool is_reachable(const Node& from_its_dependencies, const Node& node) {
  std::vector<const Node*> open{&from_its_dependencies};
  std::set<const Node*> seen;
  while (!open.empty()) {
    const Node* at = open.back();
    open.pop_back();
    if (at == &node) return true;
    if (seen.insert(at).second) open.insert(open.end(), at->dependencies.begin(), at->dependencies.end());
  }
  return false;
}

Node& node_of(cudaGraphNode_t handle) {
  const GraphLock lock(graph_mutex());
  auto* node = reinterpret_cast<Node*>(handle);
  require(live_nodes().count(node) > 0, cudaErrorInvalidValue);
  return *node;
}

std::vector<Node*> nodes_of(const cudaGraphNode_t* handles, size_t count) {
  require(handles || count == 0, cudaErrorInvalidValue);
  std::vector<Node*> result;
  for (size_t i = 0; i < count; ++i) result.push_back(&node_of(handles[i]));
  return result;
}

void run(const Graph& graph) {
  for (const Node* node : graph.order()) {
    if (!node->enabled) continue;
    if (!has_memory(node->operation)) raise_fault(*node->device, cudaErrorIllegalAddress);
    execute(node->operation, *node->device);
  }
}

std::shared_ptr<Graph> graph_of(cudaGraph_t handle) { return graphs().get(handle, cudaErrorInvalidValue); }
cudaGraph_t add_handle(std::shared_ptr<Graph> graph) { return graphs().add<cudaGraph_t>(std::move(graph)); }
void remove_handle(cudaGraph_t handle) { graphs().remove(handle, cudaErrorInvalidValue); }

}  // namespace flopcuda::vcuda
