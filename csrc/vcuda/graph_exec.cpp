// Executable graphs: a copy of a graph that can be launched again and again.
#include <algorithm>

#include "capture.h"
#include "copies.h"
#include "error.h"
#include "events.h"
#include "graph.h"
#include "handles.h"
#include "node_parameters.h"
#include "streams.h"

namespace flopcuda::vcuda {
namespace {

struct GraphExec {
  std::shared_ptr<Graph> graph;
  unsigned long long flags = 0;
};

HandleTable<GraphExec>& executables() { return immortal<HandleTable<GraphExec>>(); }

std::shared_ptr<GraphExec> executable_of(cudaGraphExec_t handle) {
  return executables().get(handle, cudaErrorInvalidValue);
}

cudaGraphExec_t instantiate(cudaGraph_t handle, unsigned long long flags) {
  constexpr unsigned long long kKnown = cudaGraphInstantiateFlagAutoFreeOnLaunch | cudaGraphInstantiateFlagUpload |
                                        cudaGraphInstantiateFlagUseNodePriority;
  require((flags & ~kKnown) == 0, cudaErrorNotSupported);
  const GraphLock lock(graph_mutex());
  const std::shared_ptr<Graph> graph = graph_of(handle);
  require(graph->order().size() == graph->nodes.size(), cudaErrorInvalidValue);
  return executables().add<cudaGraphExec_t>(std::make_shared<GraphExec>(GraphExec{graph->clone(), flags}));
}

// What the last launch allocated and nobody freed.
void free_allocations(const Graph& graph) {
  for (const auto& node : graph.nodes) {
    if (const auto* allocation = std::get_if<Allocate>(&node->operation)) {
      address_space().remove(allocation->place(), [](const Block& block) { return block.kind == MemoryKind::kDevice; });
    }
  }
}

// A captured launch becomes a node; later changes of the executable graph are not its.
void launch(const GraphExec& executable, Stream& stream) {
  if (is_capturing(stream)) return submit(stream, ChildGraph{executable.graph->clone()});
  if (executable.flags & cudaGraphInstantiateFlagAutoFreeOnLaunch) free_allocations(*executable.graph);
  submit(stream, ChildGraph{executable.graph});
}

Node& node_in(const GraphExec& executable, cudaGraphNode_t original) {
  Node* found = executable.graph->find_clone_of(node_of(original));
  require(found != nullptr, cudaErrorInvalidValue);
  return *found;
}

void set(cudaGraphExec_t executable, cudaGraphNode_t original, Operation operation) {
  const GraphLock lock(graph_mutex());
  Node& node = node_in(*executable_of(executable), original);
  require(node.operation.index() == operation.index(), cudaErrorInvalidValue);
  node.operation = std::move(operation);
}

std::vector<size_t> dependency_numbers(const Graph& graph, const Node& node) {
  std::vector<size_t> numbers;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const auto& list = node.dependencies;
    if (std::find(list.begin(), list.end(), graph.nodes[i].get()) != list.end()) numbers.push_back(i);
  }
  return numbers;
}

// Why an executable graph can't become this one.
cudaGraphExecUpdateResultInfo compare(const Graph& old, const Graph& wanted) {
  if (old.nodes.size() != wanted.nodes.size()) return {cudaGraphExecUpdateErrorTopologyChanged, nullptr, nullptr};
  for (size_t i = 0; i < old.nodes.size(); ++i) {
    const Node &before = *old.nodes[i], &after = *wanted.nodes[i];
    if (dependency_numbers(old, before) != dependency_numbers(wanted, after)) {
      return {cudaGraphExecUpdateErrorTopologyChanged, handle_of(after), nullptr};
    }
    if (before.operation.index() != after.operation.index()) {
      return {cudaGraphExecUpdateErrorNodeTypeChanged, handle_of(after), nullptr};
    }
    if (std::holds_alternative<Allocate>(after.operation)) {
      return {cudaGraphExecUpdateErrorNotSupported, handle_of(after), nullptr};
    }
  }
  return {cudaGraphExecUpdateSuccess, nullptr, nullptr};
}

}  // namespace
}  // namespace flopcuda::vcuda

using namespace flopcuda::vcuda;

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags) {
  return entry([&] { require_pointer(executable) = instantiate(graph, flags); });
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags) {
  return cudaGraphInstantiate(executable, graph, flags);
}

cudaError_t cudaGraphInstantiateWithParams(cudaGraphExec_t* executable, cudaGraph_t graph,
                                           cudaGraphInstantiateParams* parameters) {
  return entry([&] {
    cudaGraphInstantiateParams& p = require_pointer(parameters);
    p.errNode_out = nullptr;
    p.result_out = cudaGraphInstantiateError;
    require_pointer(executable) = instantiate(graph, p.flags);
    p.result_out = cudaGraphInstantiateSuccess;
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return entry_despite_fault([&] { executables().remove(executable, cudaErrorInvalidValue); });
}

cudaError_t cudaGraphExecGetFlags(cudaGraphExec_t executable, unsigned long long* flags) {
  return entry([&] { require_pointer(flags) = executable_of(executable)->flags; });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t stream) {
  return entry([&] {
    executable_of(executable);
    stream_of(stream);
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return entry([&] { launch(*executable_of(executable), *stream_of(stream)); });
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t executable, cudaGraph_t graph, cudaGraphExecUpdateResultInfo* result) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    const std::shared_ptr<GraphExec> updated = executable_of(executable);
    const std::shared_ptr<Graph> wanted = graph_of(graph);
    require_pointer(result) = compare(*updated->graph, *wanted);
    require(result->result == cudaGraphExecUpdateSuccess, cudaErrorGraphExecUpdateFailure);
    for (size_t i = 0; i < wanted->nodes.size(); ++i) {
      updated->graph->nodes[i]->operation = wanted->nodes[i]->operation;
    }
  });
}

cudaError_t cudaGraphNodeSetEnabled(cudaGraphExec_t executable, cudaGraphNode_t original, unsigned enabled) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    Node& node = node_in(*executable_of(executable), original);
    const cudaGraphNodeType type = type_of(node);
    require(type == cudaGraphNodeTypeKernel || type == cudaGraphNodeTypeMemcpy || type == cudaGraphNodeTypeMemset,
            cudaErrorInvalidValue);
    node.enabled = enabled != 0;
  });
}

cudaError_t cudaGraphNodeGetEnabled(cudaGraphExec_t executable, cudaGraphNode_t original, unsigned* enabled) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    require_pointer(enabled) = node_in(*executable_of(executable), original).enabled;
  });
}

// ---- parameters of nodes ----

cudaError_t cudaGraphExecNodeSetParams(cudaGraphExec_t executable, cudaGraphNode_t node,
                                       cudaGraphNodeParams* parameters) {
  return entry([&] { set(executable, node, operation_of(require_pointer(parameters), current_device())); });
}

cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t executable, cudaGraphNode_t node,
                                             const cudaKernelNodeParams* parameters) {
  return entry([&] { set(executable, node, operation_of(require_pointer(parameters), current_device())); });
}

cudaError_t cudaGraphExecMemcpyNodeSetParams(cudaGraphExec_t executable, cudaGraphNode_t node,
                                             const cudaMemcpy3DParms* parameters) {
  return entry([&] { set(executable, node, operation_of(require_pointer(parameters))); });
}

cudaError_t cudaGraphExecMemcpyNodeSetParams1D(cudaGraphExec_t executable, cudaGraphNode_t node, void* to,
                                               const void* from, size_t size, cudaMemcpyKind kind) {
  return entry([&] { set(executable, node, checked(linear_copy(to, from, size, kind))); });
}

cudaError_t cudaGraphExecMemcpyNodeSetParamsToSymbol(cudaGraphExec_t executable, cudaGraphNode_t node,
                                                     const void* symbol, const void* from, size_t size, size_t offset,
                                                     cudaMemcpyKind kind) {
  return entry([&] { set(executable, node, checked(copy_to_symbol(symbol, from, size, offset, kind))); });
}

cudaError_t cudaGraphExecMemcpyNodeSetParamsFromSymbol(cudaGraphExec_t executable, cudaGraphNode_t node, void* to,
                                                       const void* symbol, size_t size, size_t offset,
                                                       cudaMemcpyKind kind) {
  return entry([&] { set(executable, node, checked(copy_from_symbol(to, symbol, size, offset, kind))); });
}

cudaError_t cudaGraphExecMemsetNodeSetParams(cudaGraphExec_t executable, cudaGraphNode_t node,
                                             const cudaMemsetParams* parameters) {
  return entry([&] { set(executable, node, operation_of(require_pointer(parameters))); });
}

cudaError_t cudaGraphExecHostNodeSetParams(cudaGraphExec_t executable, cudaGraphNode_t node,
                                           const cudaHostNodeParams* parameters) {
  return entry([&] { set(executable, node, operation_of(require_pointer(parameters))); });
}

cudaError_t cudaGraphExecChildGraphNodeSetParams(cudaGraphExec_t executable, cudaGraphNode_t node, cudaGraph_t child) {
  return entry([&] { set(executable, node, ChildGraph{graph_of(child)->clone()}); });
}

cudaError_t cudaGraphExecEventRecordNodeSetEvent(cudaGraphExec_t executable, cudaGraphNode_t node, cudaEvent_t event) {
  return entry([&] { set(executable, node, EventRecord{event_of(event)}); });
}

cudaError_t cudaGraphExecEventWaitNodeSetEvent(cudaGraphExec_t executable, cudaGraphNode_t node, cudaEvent_t event) {
  return entry([&] { set(executable, node, EventWait{event_of(event)}); });
}
