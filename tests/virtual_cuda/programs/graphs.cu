// Graphs made by hand: their nodes, edges and parameters, and who keeps what alive.
#include <fstream>

#include "graphs.h"

struct HandMade {
  HandMade() : value({1}) {
    CHECK(cudaGraphCreate(&graph, 0));
    kernel.func = reinterpret_cast<void*>(multiply_and_add);
    kernel.gridDim = kernel.blockDim = 1;
    kernel.kernelParams = arguments;
  }
  cudaGraphNode_t add_kernel(const std::vector<cudaGraphNode_t>& after, int factor_, int summand_) {
    factor = factor_;
    summand = summand_;
    cudaGraphNode_t node;
    CHECK(cudaGraphAddKernelNode(&node, graph, after.data(), after.size(), &kernel));
    return node;
  }
  Array<int> value;
  cudaGraph_t graph;
  cudaKernelNodeParams kernel{};
  int factor = 0, summand = 0;
  void* arguments[3] = {&value.data, &factor, &summand};
};

SCENARIO(edges_decide_the_order) {
  HandMade made;
  cudaGraphNode_t add = made.add_kernel({}, 1, 4);
  cudaGraphNode_t multiply = made.add_kernel({}, 10, 0);
  CHECK(cudaGraphAddDependencies(made.graph, &multiply, &add, nullptr, 1));
  EXPECT_ERROR(cudaGraphAddDependencies(made.graph, &multiply, &add, nullptr, 1), cudaErrorInvalidValue);
  CHECK(cudaGraphLaunch(instantiate(made.graph), nullptr));
  EXPECT(made.value.get()[0] == 14);
  CHECK(cudaGraphRemoveDependencies(made.graph, &multiply, &add, nullptr, 1));
  CHECK(cudaGraphAddDependencies(made.graph, &add, &multiply, nullptr, 1));
  CHECK(cudaGraphLaunch(instantiate(made.graph), nullptr));
  EXPECT(made.value.get()[0] == 180);

  cudaGraphNode_t from, to, root;
  size_t count = 1;
  CHECK(cudaGraphGetEdges(made.graph, &from, &to, nullptr, &count));
  EXPECT(count == 1 && from == add && to == multiply);
  CHECK(cudaGraphGetRootNodes(made.graph, &root, &count));
  EXPECT(count == 1 && root == add);
  CHECK(cudaGraphAddDependencies(made.graph, &multiply, &add, nullptr, 1));
  cudaGraphExec_t executable;
  EXPECT_ERROR(cudaGraphInstantiate(&executable, made.graph, 0), cudaErrorInvalidValue);  // It is a circle.
  CHECK(cudaGraphDestroyNode(multiply));
  EXPECT(node_count(made.graph) == 1);
  CHECK(cudaGraphInstantiate(&executable, made.graph, 0));
}

SCENARIO(nodes_of_every_kind) {
  HandMade made;
  int calls = 0, result = 0;
  const Array<int> copy({0, 0});
  cudaEvent_t event;
  CHECK(cudaEventCreate(&event));
  std::vector<cudaGraphNode_t> nodes(1);
  const auto next = [&] {
    nodes.emplace_back();
    return &nodes.back();
  };
  const auto last = [&] { return &nodes[nodes.size() - 2]; };
  CHECK(cudaGraphAddEmptyNode(&nodes[0], made.graph, nullptr, 0));
  nodes.push_back(made.add_kernel({nodes[0]}, 7, 2));
  cudaGraphNode_t* node = next();
  CHECK(cudaGraphAddMemcpyNode1D(node, made.graph, last(), 1, copy.data, made.value.data, 4, cudaMemcpyDeviceToDevice));
  const cudaMemsetParams fill{copy.data + 1, 0, 0x0102, 2, 2, 1};
  node = next();
  CHECK(cudaGraphAddMemsetNode(node, made.graph, last(), 1, &fill));
  node = next();
  CHECK(cudaGraphAddMemcpyNode1D(node, made.graph, last(), 1, &result, copy.data + 1, 4, cudaMemcpyDeviceToHost));
  const cudaHostNodeParams call{increment, &calls};
  node = next();
  CHECK(cudaGraphAddHostNode(node, made.graph, last(), 1, &call));
  node = next();
  CHECK(cudaGraphAddEventRecordNode(node, made.graph, last(), 1, event));
  node = next();
  CHECK(cudaGraphAddEventWaitNode(node, made.graph, last(), 1, event));
  cudaMemAllocNodeParams allocation{};
  allocation.poolProps.allocType = cudaMemAllocationTypePinned;
  allocation.poolProps.location = {cudaMemLocationTypeDevice, 0};
  allocation.bytesize = 100;
  node = next();
  CHECK(cudaGraphAddMemAllocNode(node, made.graph, last(), 1, &allocation));
  node = next();
  CHECK(cudaGraphAddMemFreeNode(node, made.graph, last(), 1, allocation.dptr));
  cudaGraph_t child;
  CHECK(cudaGraphClone(&child, made.graph));
  CHECK(cudaGraphDestroyNode(nodes.back()));
  nodes.pop_back();
  CHECK(cudaGraphDestroyNode(nodes.back()));
  nodes.pop_back();
  node = next();
  EXPECT_ERROR(cudaGraphAddChildGraphNode(node, child, nullptr, 0, nullptr), cudaErrorInvalidValue);
  CHECK(cudaGraphAddChildGraphNode(node, made.graph, last(), 1, child));

  const cudaGraphNodeType types[] = {cudaGraphNodeTypeEmpty,       cudaGraphNodeTypeKernel,    cudaGraphNodeTypeMemcpy,
                                     cudaGraphNodeTypeMemset,      cudaGraphNodeTypeMemcpy,    cudaGraphNodeTypeHost,
                                     cudaGraphNodeTypeEventRecord, cudaGraphNodeTypeWaitEvent, cudaGraphNodeTypeGraph};
  EXPECT(node_count(made.graph) == std::size(types));
  for (size_t i = 0; i < std::size(types); ++i) {
    cudaGraphNodeType type;
    CHECK(cudaGraphNodeGetType(nodes[i], &type));
    EXPECT(type == types[i]);
  }
  CHECK(cudaGraphLaunch(instantiate(made.graph), nullptr));
  EXPECT(made.value.get()[0] == 65 && copy.get()[0] == 65);  // The child graph does all of it once more.
  cudaGraph_t inner;
  CHECK(cudaGraphChildGraphNodeGetGraph(nodes.back(), &inner));
  EXPECT(node_count(inner) == node_count(child));
  CHECK(cudaGraphDestroyNode(nodes.back()));
  size_t count;
  EXPECT_ERROR(cudaGraphGetNodes(inner, nullptr, &count), cudaErrorInvalidValue);
  EXPECT(result == 0x01020102 && calls == 2);
  CHECK(cudaGraphDebugDotPrint(made.graph, "/dev/stdout", 0));
}

SCENARIO(the_struct_of_any_node) {
  HandMade made;
  made.factor = 5;
  cudaGraphNodeParams any{};
  any.type = cudaGraphNodeTypeKernel;
  any.kernel.func = made.kernel.func;
  any.kernel.gridDim = any.kernel.blockDim = 1;
  any.kernel.kernelParams = made.arguments;
  cudaGraphNode_t kernel, set;
  CHECK(cudaGraphAddNode(&kernel, made.graph, nullptr, nullptr, 0, &any));
  cudaGraphNodeParams fill{};
  fill.type = cudaGraphNodeTypeMemset;
  fill.memset = {made.value.data, 0, 3, 4, 1, 1};
  CHECK(cudaGraphAddNode(&set, made.graph, nullptr, nullptr, 0, &fill));
  CHECK(cudaGraphAddDependencies(made.graph, &set, &kernel, nullptr, 1));
  cudaGraphExec_t executable = instantiate(made.graph);
  CHECK(cudaGraphLaunch(executable, nullptr));
  EXPECT(made.value.get()[0] == 15);
  fill.memset.value = 4;
  CHECK(cudaGraphExecNodeSetParams(executable, set, &fill));
  CHECK(cudaGraphLaunch(executable, nullptr));
  EXPECT(made.value.get()[0] == 20);
  EXPECT_ERROR(cudaGraphExecNodeSetParams(executable, kernel, &fill), cudaErrorInvalidValue);
  any.type = cudaGraphNodeTypeConditional;
  EXPECT_ERROR(cudaGraphAddNode(&kernel, made.graph, nullptr, nullptr, 0, &any), cudaErrorNotSupported);
}

SCENARIO(parameters_can_be_read_and_changed) {
  HandMade made;
  const cudaGraphNode_t node = made.add_kernel({}, 3, 4);
  cudaGraphExec_t before = instantiate(made.graph), changed = instantiate(made.graph);
  cudaKernelNodeParams read{};
  CHECK(cudaGraphKernelNodeGetParams(node, &read));
  EXPECT(read.func == made.kernel.func && read.gridDim.x == 1);
  EXPECT(*static_cast<int*>(read.kernelParams[1]) == 3 && *static_cast<int*>(read.kernelParams[2]) == 4);
  made.factor = 0;
  made.summand = 100;
  CHECK(cudaGraphExecKernelNodeSetParams(changed, node, &made.kernel));
  CHECK(cudaGraphLaunch(before, nullptr));
  EXPECT(made.value.get()[0] == 7);
  CHECK(cudaGraphLaunch(changed, nullptr));
  EXPECT(made.value.get()[0] == 100);
  made.summand = 50;
  CHECK(cudaGraphKernelNodeSetParams(node, &made.kernel));
  CHECK(cudaGraphLaunch(changed, nullptr));
  EXPECT(made.value.get()[0] == 100);
  CHECK(cudaGraphLaunch(instantiate(made.graph), nullptr));
  EXPECT(made.value.get()[0] == 50);

  CHECK(cudaGraphNodeSetEnabled(changed, node, 0));
  CHECK(cudaGraphLaunch(changed, nullptr));
  unsigned enabled;
  CHECK(cudaGraphNodeGetEnabled(changed, node, &enabled));
  EXPECT(enabled == 0 && made.value.get()[0] == 50);
}

SCENARIO(an_executable_graph_becomes_another) {
  HandMade old, wanted, other;
  old.add_kernel({old.add_kernel({}, 2, 0)}, 1, 1);
  wanted.add_kernel({wanted.add_kernel({}, 3, 0)}, 1, 2);
  other.add_kernel({}, 1, 1);
  other.add_kernel({}, 1, 1);
  cudaGraphExec_t executable = instantiate(old.graph);
  cudaGraphExecUpdateResultInfo result;
  CHECK(cudaGraphExecUpdate(executable, wanted.graph, &result));
  EXPECT(result.result == cudaGraphExecUpdateSuccess);
  CHECK(cudaGraphLaunch(executable, nullptr));
  EXPECT(old.value.get()[0] == 1 && wanted.value.get()[0] == 5);
  EXPECT_ERROR(cudaGraphExecUpdate(executable, other.graph, &result), cudaErrorGraphExecUpdateFailure);
  EXPECT(result.result == cudaGraphExecUpdateErrorTopologyChanged);
}

SCENARIO(user_objects_live_as_long_as_graphs) {
  int destroyed = 0;
  cudaUserObject_t object;
  cudaGraph_t graph;
  CHECK(cudaGraphCreate(&graph, 0));
  CHECK(cudaUserObjectCreate(&object, &destroyed, increment, 1, cudaUserObjectNoDestructorSync));
  CHECK(cudaGraphRetainUserObject(graph, object, 1, cudaGraphUserObjectMove));
  EXPECT_ERROR(cudaUserObjectRelease(object, 1), cudaErrorInvalidValue);  // It is the graph's now.
  cudaGraphExec_t executable = instantiate(graph);
  CHECK(cudaGraphDestroy(graph));
  EXPECT(destroyed == 0);
  CHECK(cudaGraphExecDestroy(executable));
  EXPECT(destroyed == 1);

  CHECK(cudaUserObjectCreate(&object, &destroyed, increment, 2, cudaUserObjectNoDestructorSync));
  CHECK(cudaUserObjectRetain(object, 1));
  CHECK(cudaUserObjectRelease(object, 2));
  EXPECT(destroyed == 1);
  CHECK(cudaUserObjectRelease(object, 1));
  EXPECT(destroyed == 2);
}

SCENARIO(a_fault_in_a_graph_lasts) {
  HandMade made;
  int* null = nullptr;
  made.arguments[0] = &null;
  made.add_kernel({}, 1, 1);
  EXPECT_ERROR(cudaGraphLaunch(instantiate(made.graph), nullptr), cudaErrorIllegalAddress);
  EXPECT_ERROR(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
}
