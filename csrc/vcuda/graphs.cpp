// Graphs and their nodes, made and changed by hand.
#include <algorithm>
#include <fstream>

#include "copies.h"
#include "error.h"
#include "events.h"
#include "graph.h"
#include "module.h"
#include "node_parameters.h"
#include "pools.h"

namespace flopcuda::vcuda {
namespace {

void add(cudaGraphNode_t* out, cudaGraph_t graph, const cudaGraphNode_t* dependencies, size_t count,
         Operation operation) {
  const GraphLock lock(graph_mutex());
  require(out != nullptr, cudaErrorInvalidValue);
  *out = handle_of(graph_of(graph)->add(std::move(operation), current_device(), nodes_of(dependencies, count)));
}

void set(cudaGraphNode_t handle, Operation operation) {
  const GraphLock lock(graph_mutex());
  Node& node = node_of(handle);
  require(node.operation.index() == operation.index(), cudaErrorInvalidValue);
  node.operation = std::move(operation);
}

template <class Parameters>
cudaError_t get(cudaGraphNode_t node, Parameters* parameters) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    read_parameters(node_of(node), require_pointer(parameters));
  });
}

template <class Kind>
const Kind& content(cudaGraphNode_t handle) {
  const auto* found = std::get_if<Kind>(&node_of(handle).operation);
  require(found != nullptr, cudaErrorInvalidValue);
  return *found;
}

template <class Kind>
cudaError_t get_event(cudaGraphNode_t node, cudaEvent_t* event) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    require_pointer(event) = handle_of(*content<Kind>(node).event);
  });
}

// The list's length without an array; as many as fit with one, the rest of it cleared.
template <class Element>
void give(const std::vector<Element>& list, Element* out, size_t* count) {
  require(count != nullptr, cudaErrorInvalidValue);
  if (out) {
    for (size_t i = 0; i < *count; ++i) out[i] = i < list.size() ? list[i] : Element();
    *count = std::min(*count, list.size());
  } else {
    *count = list.size();
  }
}

template <class List>
std::vector<cudaGraphNode_t> handles_of(const List& nodes) {
  std::vector<cudaGraphNode_t> handles;
  for (const auto& node : nodes) handles.push_back(handle_of(*node));
  return handles;
}

void clear(cudaGraphEdgeData* edges, const size_t* count) {
  if (edges) std::fill_n(edges, *count, cudaGraphEdgeData{});
}

template <class Change>
void change_edges(cudaGraph_t handle, const cudaGraphNode_t* from, const cudaGraphNode_t* to, size_t count,
                  Change change) {
  const GraphLock lock(graph_mutex());
  const std::shared_ptr<Graph> graph = graph_of(handle);
  const std::vector<Node*> sources = nodes_of(from, count), targets = nodes_of(to, count);
  for (size_t i = 0; i < count; ++i) {
    require(sources[i]->graph == graph.get(), cudaErrorInvalidValue);
    require(change(*targets[i], *sources[i]), cudaErrorInvalidValue);
  }
}

void print(const Graph& graph, const char* path) {
  std::ofstream file(path);
  require(file.good(), cudaErrorInvalidValue);
  file << "digraph graph_of_a_virtual_device {\n";
  const auto& nodes = graph.nodes;
  const auto number_of = [&](const Node* node) {
    return std::find_if(nodes.begin(), nodes.end(), [&](const auto& entry) { return entry.get() == node; }) -
           nodes.begin();
  };
  for (size_t i = 0; i < nodes.size(); ++i) {
    const auto* launch = std::get_if<KernelLaunch>(&nodes[i]->operation);
    file << "  " << i << " [label=\"" << name_of(type_of(*nodes[i])) << (launch ? " " + launch->kernel->name : "")
         << "\"];\n";
    for (const Node* dependency : nodes[i]->dependencies) file << "  " << number_of(dependency) << " -> " << i << ";\n";
  }
  file << "}\n";
}

}  // namespace
}  // namespace flopcuda::vcuda

using namespace flopcuda::vcuda;

// ---- graphs ----

cudaError_t cudaGraphCreate(cudaGraph_t* graph, unsigned flags) {
  return entry([&] {
    require(graph && flags == 0, cudaErrorInvalidValue);
    *graph = add_handle(std::make_shared<Graph>());
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return entry_despite_fault([&] { remove_handle(graph); });
}

cudaError_t cudaGraphClone(cudaGraph_t* clone, cudaGraph_t original) {
  return entry([&] { require_pointer(clone) = add_handle(graph_of(original)->clone()); });
}

cudaError_t cudaGraphNodeFindInClone(cudaGraphNode_t* node, cudaGraphNode_t original, cudaGraph_t clone) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    const Node* found = graph_of(clone)->find_clone_of(node_of(original));
    require(found != nullptr, cudaErrorInvalidValue);
    require_pointer(node) = handle_of(*found);
  });
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    give(handles_of(graph_of(graph)->nodes), nodes, count);
  });
}

cudaError_t cudaGraphGetRootNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    std::vector<const Node*> roots;
    for (const auto& node : graph_of(graph)->nodes) {
      if (node->dependencies.empty()) roots.push_back(node.get());
    }
    give(handles_of(roots), nodes, count);
  });
}

cudaError_t cudaGraphGetEdges(cudaGraph_t graph, cudaGraphNode_t* from, cudaGraphNode_t* to, cudaGraphEdgeData* edges,
                              size_t* count) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    std::vector<cudaGraphNode_t> sources, targets;
    for (const auto& node : graph_of(graph)->nodes) {
      for (const Node* dependency : node->dependencies) {
        sources.push_back(handle_of(*dependency));
        targets.push_back(handle_of(*node));
      }
    }
    require(count && !from == !to, cudaErrorInvalidValue);
    size_t as_many = *count;
    give(sources, from, &as_many);
    give(targets, to, count);
    clear(edges, count);
  });
}

cudaError_t cudaGraphAddDependencies(cudaGraph_t graph, const cudaGraphNode_t* from, const cudaGraphNode_t* to,
                                     const cudaGraphEdgeData*, size_t count) {
  return entry([&] { change_edges(graph, from, to, count, add_dependency); });
}

cudaError_t cudaGraphRemoveDependencies(cudaGraph_t graph, const cudaGraphNode_t* from, const cudaGraphNode_t* to,
                                        const cudaGraphEdgeData*, size_t count) {
  return entry([&] { change_edges(graph, from, to, count, remove_dependency); });
}

cudaError_t cudaGraphDebugDotPrint(cudaGraph_t graph, const char* path, unsigned) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    require(path != nullptr, cudaErrorInvalidValue);
    print(*graph_of(graph), path);
  });
}

// ---- nodes ----

cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType* type) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    require_pointer(type) = type_of(node_of(node));
  });
}

cudaError_t cudaGraphNodeGetDependencies(cudaGraphNode_t node, cudaGraphNode_t* dependencies, cudaGraphEdgeData* edges,
                                         size_t* count) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    give(handles_of(node_of(node).dependencies), dependencies, count);
    clear(edges, count);
  });
}

cudaError_t cudaGraphNodeGetDependentNodes(cudaGraphNode_t node, cudaGraphNode_t* dependents, cudaGraphEdgeData* edges,
                                           size_t* count) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    give(handles_of(node_of(node).dependents), dependents, count);
    clear(edges, count);
  });
}

cudaError_t cudaGraphDestroyNode(cudaGraphNode_t handle) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    Node& node = node_of(handle);
    node.graph->remove(node);
  });
}

cudaError_t cudaGraphAddNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                             const cudaGraphEdgeData*, size_t count, cudaGraphNodeParams* parameters) {
  return entry(
      [&] { add(node, graph, dependencies, count, operation_of(require_pointer(parameters), current_device())); });
}

cudaError_t cudaGraphNodeSetParams(cudaGraphNode_t node, cudaGraphNodeParams* parameters) {
  return entry([&] { set(node, operation_of(require_pointer(parameters), current_device())); });
}

cudaError_t cudaGraphAddEmptyNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                  size_t count) {
  return entry([&] { add(node, graph, dependencies, count, Nothing{}); });
}

cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                   size_t count, const cudaKernelNodeParams* parameters) {
  return entry(
      [&] { add(node, graph, dependencies, count, operation_of(require_pointer(parameters), current_device())); });
}

cudaError_t cudaGraphKernelNodeGetParams(cudaGraphNode_t node, cudaKernelNodeParams* parameters) {
  return get(node, parameters);
}

cudaError_t cudaGraphKernelNodeSetParams(cudaGraphNode_t node, const cudaKernelNodeParams* parameters) {
  return entry([&] { set(node, operation_of(require_pointer(parameters), current_device())); });
}

cudaError_t cudaGraphAddMemcpyNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                   size_t count, const cudaMemcpy3DParms* parameters) {
  return entry([&] { add(node, graph, dependencies, count, operation_of(require_pointer(parameters))); });
}

cudaError_t cudaGraphAddMemcpyNode1D(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                     size_t count, void* to, const void* from, size_t size, cudaMemcpyKind kind) {
  return entry([&] { add(node, graph, dependencies, count, checked(linear_copy(to, from, size, kind))); });
}

cudaError_t cudaGraphAddMemcpyNodeToSymbol(cudaGraphNode_t* node, cudaGraph_t graph,
                                           const cudaGraphNode_t* dependencies, size_t count, const void* symbol,
                                           const void* from, size_t size, size_t offset, cudaMemcpyKind kind) {
  return entry(
      [&] { add(node, graph, dependencies, count, checked(copy_to_symbol(symbol, from, size, offset, kind))); });
}

cudaError_t cudaGraphAddMemcpyNodeFromSymbol(cudaGraphNode_t* node, cudaGraph_t graph,
                                             const cudaGraphNode_t* dependencies, size_t count, void* to,
                                             const void* symbol, size_t size, size_t offset, cudaMemcpyKind kind) {
  return entry(
      [&] { add(node, graph, dependencies, count, checked(copy_from_symbol(to, symbol, size, offset, kind))); });
}

cudaError_t cudaGraphMemcpyNodeGetParams(cudaGraphNode_t node, cudaMemcpy3DParms* parameters) {
  return get(node, parameters);
}

cudaError_t cudaGraphMemcpyNodeSetParams(cudaGraphNode_t node, const cudaMemcpy3DParms* parameters) {
  return entry([&] { set(node, operation_of(require_pointer(parameters))); });
}

cudaError_t cudaGraphMemcpyNodeSetParams1D(cudaGraphNode_t node, void* to, const void* from, size_t size,
                                           cudaMemcpyKind kind) {
  return entry([&] { set(node, checked(linear_copy(to, from, size, kind))); });
}

cudaError_t cudaGraphMemcpyNodeSetParamsToSymbol(cudaGraphNode_t node, const void* symbol, const void* from,
                                                 size_t size, size_t offset, cudaMemcpyKind kind) {
  return entry([&] { set(node, checked(copy_to_symbol(symbol, from, size, offset, kind))); });
}

cudaError_t cudaGraphMemcpyNodeSetParamsFromSymbol(cudaGraphNode_t node, void* to, const void* symbol, size_t size,
                                                   size_t offset, cudaMemcpyKind kind) {
  return entry([&] { set(node, checked(copy_from_symbol(to, symbol, size, offset, kind))); });
}

cudaError_t cudaGraphAddMemsetNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                   size_t count, const cudaMemsetParams* parameters) {
  return entry([&] { add(node, graph, dependencies, count, operation_of(require_pointer(parameters))); });
}

cudaError_t cudaGraphMemsetNodeGetParams(cudaGraphNode_t node, cudaMemsetParams* parameters) {
  return get(node, parameters);
}

cudaError_t cudaGraphMemsetNodeSetParams(cudaGraphNode_t node, const cudaMemsetParams* parameters) {
  return entry([&] { set(node, operation_of(require_pointer(parameters))); });
}

cudaError_t cudaGraphAddHostNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                 size_t count, const cudaHostNodeParams* parameters) {
  return entry([&] { add(node, graph, dependencies, count, operation_of(require_pointer(parameters))); });
}

cudaError_t cudaGraphHostNodeGetParams(cudaGraphNode_t node, cudaHostNodeParams* parameters) {
  return get(node, parameters);
}

cudaError_t cudaGraphHostNodeSetParams(cudaGraphNode_t node, const cudaHostNodeParams* parameters) {
  return entry([&] { set(node, operation_of(require_pointer(parameters))); });
}

cudaError_t cudaGraphAddChildGraphNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                       size_t count, cudaGraph_t child) {
  return entry([&] { add(node, graph, dependencies, count, ChildGraph{graph_of(child)->clone()}); });
}

cudaError_t cudaGraphChildGraphNodeGetGraph(cudaGraphNode_t node, cudaGraph_t* graph) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    require_pointer(graph) = add_handle(content<ChildGraph>(node).graph);
  });
}

cudaError_t cudaGraphAddEventRecordNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                        size_t count, cudaEvent_t event) {
  return entry([&] { add(node, graph, dependencies, count, EventRecord{event_of(event)}); });
}

cudaError_t cudaGraphEventRecordNodeGetEvent(cudaGraphNode_t node, cudaEvent_t* event) {
  return get_event<EventRecord>(node, event);
}

cudaError_t cudaGraphEventRecordNodeSetEvent(cudaGraphNode_t node, cudaEvent_t event) {
  return entry([&] { set(node, EventRecord{event_of(event)}); });
}

cudaError_t cudaGraphAddEventWaitNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                      size_t count, cudaEvent_t event) {
  return entry([&] { add(node, graph, dependencies, count, EventWait{event_of(event)}); });
}

cudaError_t cudaGraphEventWaitNodeGetEvent(cudaGraphNode_t node, cudaEvent_t* event) {
  return get_event<EventWait>(node, event);
}

cudaError_t cudaGraphEventWaitNodeSetEvent(cudaGraphNode_t node, cudaEvent_t event) {
  return entry([&] { set(node, EventWait{event_of(event)}); });
}

cudaError_t cudaGraphAddMemAllocNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                     size_t count, cudaMemAllocNodeParams* parameters) {
  return entry([&] { add(node, graph, dependencies, count, operation_of(require_pointer(parameters))); });
}

cudaError_t cudaGraphMemAllocNodeGetParams(cudaGraphNode_t node, cudaMemAllocNodeParams* parameters) {
  return get(node, parameters);
}

cudaError_t cudaGraphAddMemFreeNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                    size_t count, void* place) {
  return entry([&] {
    require(place != nullptr, cudaErrorInvalidValue);
    add(node, graph, dependencies, count, Release{place});
  });
}

cudaError_t cudaGraphMemFreeNodeGetParams(cudaGraphNode_t node, void* place) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    require(place != nullptr, cudaErrorInvalidValue);
    *static_cast<void**>(place) = content<Release>(node).place;
  });
}

// ---- memory of graphs ----

cudaError_t cudaDeviceGetGraphMemAttribute(int ordinal, cudaGraphMemAttributeType attribute, void* value) {
  return entry([&] {
    require(value != nullptr, cudaErrorInvalidValue);
    const std::shared_ptr<Pool> pool = graph_pool(device(ordinal).ordinal);
    const bool high = attribute == cudaGraphMemAttrUsedMemHigh || attribute == cudaGraphMemAttrReservedMemHigh;
    *static_cast<uint64_t*>(value) = high ? pool->most_in_use() : pool->in_use();
  });
}

cudaError_t cudaDeviceSetGraphMemAttribute(int ordinal, cudaGraphMemAttributeType attribute, void* value) {
  return entry([&] {
    const bool high = attribute == cudaGraphMemAttrUsedMemHigh || attribute == cudaGraphMemAttrReservedMemHigh;
    require(high && value && *static_cast<const uint64_t*>(value) == 0, cudaErrorInvalidValue);
    graph_pool(device(ordinal).ordinal)->forget_most();
  });
}

cudaError_t cudaDeviceGraphMemTrim(int ordinal) {
  return entry([&] { device(ordinal); });
}
