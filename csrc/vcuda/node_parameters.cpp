// See node_parameters.h.
#include "node_parameters.h"

#include "copies.h"
#include "error.h"
#include "events.h"
#include "launch.h"
#include "module.h"
#include "pools.h"

namespace flopcuda::vcuda {
namespace {

// What a node of another type does not have: cudaErrorInvalidValue.
template <class Kind>
Kind& content(Node& node) {
  Kind* found = std::get_if<Kind>(&node.operation);
  require(found != nullptr, cudaErrorInvalidValue);
  return *found;
}

cudaPitchedPtr pitched(const Place& place, const Box& box) {
  return {place.begin, place.row, box.width, place.row ? place.plane / place.row : box.height};
}

// Versions of the structs that differ in names and padding only.
cudaKernelNodeParams without_version(const cudaKernelNodeParamsV2& p) {
  return {p.func, p.gridDim, p.blockDim, p.sharedMemBytes, p.kernelParams, p.extra};
}
cudaMemsetParams without_version(const cudaMemsetParamsV2& p) {
  return {p.dst, p.pitch, p.value, p.elementSize, p.width, p.height};
}

}  // namespace

Operation checked(Copy copy) {
  check(copy);
  return copy;
}

Operation operation_of(const cudaKernelNodeParams& p, const Device& device) {
  require(!p.extra, cudaErrorNotSupported);
  return prepare_launch(p.func, p.gridDim, p.blockDim, p.kernelParams, p.sharedMemBytes, device);
}

Operation operation_of(const cudaMemcpy3DParms& parameters) { return checked(box_copy(&parameters)); }

Operation operation_of(const cudaMemsetParams& p) {
  require(p.elementSize == 1 || p.elementSize == 2 || p.elementSize == 4, cudaErrorInvalidValue);
  const Fill fill{{static_cast<char*>(p.dst), p.pitch, 0}, {p.width * p.elementSize, p.height}, p.value, p.elementSize};
  check(fill);
  return fill;
}

Operation operation_of(const cudaHostNodeParams& p) {
  require(p.fn != nullptr, cudaErrorInvalidValue);
  return HostCall{p.fn, p.userData};
}

Operation operation_of(cudaMemAllocNodeParams& p) {
  require(p.poolProps.allocType == cudaMemAllocationTypePinned &&
              p.poolProps.location.type == cudaMemLocationTypeDevice && p.bytesize > 0,
          cudaErrorInvalidValue);
  const int ordinal = device(p.poolProps.location.id).ordinal;
  Allocate allocation{reserve_for_graph(p.bytesize, ordinal)};
  p.dptr = allocation.place();
  return allocation;
}

Operation operation_of(cudaGraphNodeParams& p, const Device& device) {
  switch (p.type) {
    case cudaGraphNodeTypeKernel:
      return operation_of(without_version(p.kernel), device);
    case cudaGraphNodeTypeMemcpy:
      return operation_of(p.memcpy.copyParams);
    case cudaGraphNodeTypeMemset:
      return operation_of(without_version(p.memset));
    case cudaGraphNodeTypeHost:
      return operation_of(cudaHostNodeParams{p.host.fn, p.host.userData});
    case cudaGraphNodeTypeGraph:
      return ChildGraph{graph_of(p.graph.graph)->clone()};
    case cudaGraphNodeTypeEmpty:
      return Nothing{};
    case cudaGraphNodeTypeWaitEvent:
      return EventWait{event_of(p.eventWait.event)};
    case cudaGraphNodeTypeEventRecord:
      return EventRecord{event_of(p.eventRecord.event)};
    case cudaGraphNodeTypeMemAlloc: {
      cudaMemAllocNodeParams alloc{p.alloc.poolProps, p.alloc.accessDescs, p.alloc.accessDescCount, p.alloc.bytesize,
                                   nullptr};
      Operation operation = operation_of(alloc);
      p.alloc.dptr = alloc.dptr;
      return operation;
    }
    case cudaGraphNodeTypeMemFree:
      return Release{p.free.dptr};
    default:
      fail(cudaErrorNotSupported);
  }
}

void read_parameters(Node& node, cudaKernelNodeParams& out) {
  KernelLaunch& launch = content<KernelLaunch>(node);
  node.arguments.clear();
  for (const ptxvm::ParameterSlot& slot : launch.kernel->program(*node.device).functions[0].parameters) {
    node.arguments.push_back(launch.parameters.data() + slot.offset);
  }
  out = {const_cast<void*>(launch.function),         launch.grid,           launch.block,
         static_cast<unsigned>(launch.shared_bytes), node.arguments.data(), nullptr};
}

void read_parameters(Node& node, cudaMemcpy3DParms& out) {
  const Copy& copy = content<Copy>(node);
  out = {};
  out.srcPtr = pitched(copy.from, copy.box);
  out.dstPtr = pitched(copy.to, copy.box);
  out.extent = {copy.box.width, copy.box.height, copy.box.depth};
  out.kind = copy.kind;
}

void read_parameters(Node& node, cudaMemsetParams& out) {
  const Fill& fill = content<Fill>(node);
  out = {fill.to.begin, fill.to.row, fill.value, fill.element, fill.box.width / fill.element, fill.box.height};
}

void read_parameters(Node& node, cudaHostNodeParams& out) {
  const HostCall& call = content<HostCall>(node);
  out = {call.function, call.argument};
}

void read_parameters(Node& node, cudaMemAllocNodeParams& out) {
  const Allocate& allocation = content<Allocate>(node);
  out = {};
  out.poolProps.allocType = cudaMemAllocationTypePinned;
  out.poolProps.location = {cudaMemLocationTypeDevice, allocation.block.device};
  out.bytesize = allocation.block.size;
  out.dptr = allocation.place();
}

cudaGraphNodeType type_of(const Node& node) {
  struct Visitor {
    cudaGraphNodeType operator()(const Nothing&) const { return cudaGraphNodeTypeEmpty; }
    cudaGraphNodeType operator()(const KernelLaunch&) const { return cudaGraphNodeTypeKernel; }
    cudaGraphNodeType operator()(const Copy&) const { return cudaGraphNodeTypeMemcpy; }
    cudaGraphNodeType operator()(const Fill&) const { return cudaGraphNodeTypeMemset; }
    cudaGraphNodeType operator()(const HostCall&) const { return cudaGraphNodeTypeHost; }
    cudaGraphNodeType operator()(const StreamCallback&) const { return cudaGraphNodeTypeHost; }
    cudaGraphNodeType operator()(const EventRecord&) const { return cudaGraphNodeTypeEventRecord; }
    cudaGraphNodeType operator()(const EventWait&) const { return cudaGraphNodeTypeWaitEvent; }
    cudaGraphNodeType operator()(const Allocate&) const { return cudaGraphNodeTypeMemAlloc; }
    cudaGraphNodeType operator()(const Release&) const { return cudaGraphNodeTypeMemFree; }
    cudaGraphNodeType operator()(const ChildGraph&) const { return cudaGraphNodeTypeGraph; }
  };
  return std::visit(Visitor(), node.operation);
}

const char* name_of(cudaGraphNodeType type) {
  switch (type) {
    case cudaGraphNodeTypeKernel:
      return "kernel";
    case cudaGraphNodeTypeMemcpy:
      return "memcpy";
    case cudaGraphNodeTypeMemset:
      return "memset";
    case cudaGraphNodeTypeHost:
      return "host";
    case cudaGraphNodeTypeGraph:
      return "graph";
    case cudaGraphNodeTypeWaitEvent:
      return "wait for event";
    case cudaGraphNodeTypeEventRecord:
      return "record event";
    case cudaGraphNodeTypeMemAlloc:
      return "allocate";
    case cudaGraphNodeTypeMemFree:
      return "free";
    default:
      return "empty";
  }
}

}  // namespace flopcuda::vcuda
