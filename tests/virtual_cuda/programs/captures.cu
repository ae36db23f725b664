// Graphs made by capture: what they run, when, and what a capture forbids.
#include <thread>

#include "graphs.h"

static cudaStreamCaptureStatus status_of(cudaStream_t stream) {
  cudaStreamCaptureStatus status;
  CHECK(cudaStreamIsCapturing(stream, &status));
  return status;
}

SCENARIO(a_captured_graph_runs_at_each_launch) {
  const Array<int> value({1}), copy({0});
  cudaStream_t stream = new_stream();
  int calls = 0, result = 0;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  EXPECT(status_of(stream) == cudaStreamCaptureStatusActive);
  multiply_and_add<<<1, 1, 0, stream>>>(value.data, 3, 1);
  CHECK(cudaMemcpyAsync(copy.data, value.data, 4, cudaMemcpyDeviceToDevice, stream));
  CHECK(cudaMemsetAsync(copy.data, 0, 1, stream));
  CHECK(cudaMemcpyAsync(&result, copy.data, 4, cudaMemcpyDeviceToHost, stream));
  CHECK(cudaLaunchHostFunc(stream, increment, &calls));
  cudaGraph_t graph;
  CHECK(cudaStreamEndCapture(stream, &graph));
  EXPECT(status_of(stream) == cudaStreamCaptureStatusNone);
  EXPECT(node_count(graph) == 5 && value.get()[0] == 1 && calls == 0);

  cudaGraphExec_t executable = instantiate(graph);
  CHECK(cudaGraphDestroy(graph));
  int expected = 1;
  for (int i = 0; i < 6; ++i) {
    CHECK(cudaGraphLaunch(executable, stream));
    CHECK(cudaStreamSynchronize(stream));
    expected = expected * 3 + 1;
    EXPECT(value.get()[0] == expected && result == (expected & ~0xff) && calls == i + 1);
  }
  CHECK(cudaGraphExecDestroy(executable));
  EXPECT_ERROR(cudaGraphLaunch(executable, stream), cudaErrorInvalidValue);
}

SCENARIO(a_capture_follows_events_to_other_streams) {
  const Array<int> values({1, 1, 0});
  cudaStream_t first = new_stream(), second = new_stream();
  cudaEvent_t fork, join;
  CHECK(cudaEventCreate(&fork));
  CHECK(cudaEventCreate(&join));
  CHECK(cudaStreamBeginCapture(first, cudaStreamCaptureModeGlobal));
  multiply_and_add<<<1, 1, 0, first>>>(values.data, 1, 1);
  CHECK(cudaEventRecord(fork, first));
  CHECK(cudaStreamWaitEvent(second, fork));
  EXPECT(status_of(second) == cudaStreamCaptureStatusActive);
  copy_value<<<1, 1, 0, second>>>(values.data + 1, values.data);
  multiply_and_add<<<1, 1, 0, second>>>(values.data + 1, 10, 0);
  CHECK(cudaEventRecord(join, second));
  CHECK(cudaStreamWaitEvent(first, join));
  copy_value<<<1, 1, 0, first>>>(values.data + 2, values.data + 1);
  cudaGraph_t graph;
  CHECK(cudaStreamEndCapture(first, &graph));
  EXPECT(status_of(second) == cudaStreamCaptureStatusNone);

  size_t edges;
  CHECK(cudaGraphGetEdges(graph, nullptr, nullptr, nullptr, &edges));
  EXPECT(node_count(graph) == 4 && edges == 4);  // The last depends on both streams' work.
  CHECK(cudaGraphLaunch(instantiate(graph), first));
  EXPECT(values.get() == (std::vector<int>{2, 20, 20}));
}

SCENARIO(work_that_does_not_come_back) {
  const Array<int> value({1});
  cudaStream_t first = new_stream(), second = new_stream();
  cudaEvent_t fork;
  CHECK(cudaEventCreate(&fork));
  CHECK(cudaStreamBeginCapture(first, cudaStreamCaptureModeGlobal));
  CHECK(cudaEventRecord(fork, first));
  CHECK(cudaStreamWaitEvent(second, fork));
  multiply_and_add<<<1, 1, 0, second>>>(value.data, 1, 1);
  cudaGraph_t graph;
  EXPECT_ERROR(cudaStreamEndCapture(first, &graph), cudaErrorStreamCaptureUnjoined);
  EXPECT(graph == nullptr);
  multiply_and_add<<<1, 1, 0, second>>>(value.data, 1, 1);
  CHECK(cudaStreamSynchronize(second));
  EXPECT(value.get()[0] == 2);
}

SCENARIO(what_a_capture_forbids) {
  cudaStream_t stream = new_stream();
  cudaEvent_t event;
  cudaGraph_t graph;
  void* place;
  CHECK(cudaEventCreate(&event));
  const auto forbidden = [&](auto call, cudaError_t error, const char* text) {
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    const cudaError_t status = call();
    if (status != error) stop(__LINE__, text, cudaGetErrorName(status));
    EXPECT(status_of(stream) == cudaStreamCaptureStatusInvalidated);
    EXPECT_ERROR(cudaMemsetAsync(place, 0, 1, stream), cudaErrorStreamCaptureInvalidated);
    EXPECT_ERROR(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
    EXPECT(status_of(stream) == cudaStreamCaptureStatusNone);
  };
  CHECK(cudaMalloc(&place, 4));
#define FORBIDDEN(call, error) forbidden([&] { return call; }, error, #call)
  FORBIDDEN(cudaMalloc(&place, 4), cudaErrorStreamCaptureUnsupported);
  FORBIDDEN(cudaFree(place), cudaErrorStreamCaptureUnsupported);
  FORBIDDEN(cudaMemset(place, 0, 4), cudaErrorStreamCaptureUnsupported);
  FORBIDDEN(cudaDeviceSynchronize(), cudaErrorStreamCaptureUnsupported);
  FORBIDDEN(cudaStreamSynchronize(stream), cudaErrorStreamCaptureUnsupported);
  FORBIDDEN(cudaStreamQuery(stream), cudaErrorStreamCaptureUnsupported);
  FORBIDDEN((cudaEventRecord(event, stream), cudaEventSynchronize(event)), cudaErrorCapturedEvent);
  CHECK(cudaEventRecord(event, nullptr));
  FORBIDDEN(cudaStreamWaitEvent(stream, event), cudaErrorStreamCaptureIsolation);
}

SCENARIO(how_captures_can_be_used_wrongly) {
  cudaStream_t first = new_stream(), second = new_stream();
  cudaEvent_t event;
  cudaGraph_t graph;
  CHECK(cudaEventCreate(&event));
  EXPECT_ERROR(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal), cudaErrorStreamCaptureUnsupported);
  EXPECT_ERROR(cudaStreamEndCapture(first, &graph), cudaErrorIllegalState);
  CHECK(cudaStreamBeginCapture(first, cudaStreamCaptureModeGlobal));
  EXPECT_ERROR(cudaStreamBeginCapture(first, cudaStreamCaptureModeGlobal), cudaErrorIllegalState);
  std::thread([&] { EXPECT_ERROR(cudaStreamEndCapture(first, &graph), cudaErrorStreamCaptureWrongThread); }).join();
  CHECK(cudaStreamEndCapture(first, &graph));
  EXPECT(node_count(graph) == 0);

  // Two captures can't become one.
  CHECK(cudaStreamBeginCapture(first, cudaStreamCaptureModeGlobal));
  CHECK(cudaStreamBeginCapture(second, cudaStreamCaptureModeGlobal));
  CHECK(cudaEventRecord(event, first));
  EXPECT_ERROR(cudaStreamWaitEvent(second, event), cudaErrorStreamCaptureMerge);
  EXPECT_ERROR(cudaStreamEndCapture(first, &graph), cudaErrorStreamCaptureInvalidated);
  EXPECT_ERROR(cudaStreamEndCapture(second, &graph), cudaErrorStreamCaptureInvalidated);

  // It ends where it began.
  CHECK(cudaStreamBeginCapture(first, cudaStreamCaptureModeGlobal));
  CHECK(cudaEventRecord(event, first));
  CHECK(cudaStreamWaitEvent(second, event));
  EXPECT_ERROR(cudaStreamEndCapture(second, &graph), cudaErrorStreamCaptureUnmatched);
  EXPECT_ERROR(cudaStreamEndCapture(first, &graph), cudaErrorStreamCaptureInvalidated);
}

SCENARIO(modes_of_capture) {
  cudaStream_t stream = new_stream();
  cudaGraph_t graph;
  void* place;
  // A thread that is in the relaxed mode, or another thread while the capture is its own thread's, may do anything.
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  CHECK(cudaThreadExchangeStreamCaptureMode(&mode));
  EXPECT(mode == cudaStreamCaptureModeGlobal);
  CHECK(cudaMalloc(&place, 4));
  CHECK(cudaThreadExchangeStreamCaptureMode(&mode));
  EXPECT(mode == cudaStreamCaptureModeRelaxed);
  CHECK(cudaStreamEndCapture(stream, &graph));

  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  std::thread([&] { CHECK(cudaMalloc(&place, 4)); }).join();
  CHECK(cudaStreamEndCapture(stream, &graph));

  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  std::thread([&] { EXPECT_ERROR(cudaMalloc(&place, 4), cudaErrorStreamCaptureUnsupported); }).join();
  EXPECT_ERROR(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);

  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  CHECK(cudaMalloc(&place, 4));
  std::thread([&] { CHECK(cudaStreamEndCapture(stream, &graph)); }).join();
}

SCENARIO(a_thread_that_ends_in_mid_capture) {
  void* place;
  std::thread([] { CHECK(cudaStreamBeginCapture(cudaStreamPerThread, cudaStreamCaptureModeGlobal)); }).join();
  CHECK(cudaMalloc(&place, 4));  // Its stream is gone, and the capture with it.
}

SCENARIO(the_legacy_stream_would_have_to_wait) {
  const Array<int> value({1});
  cudaStream_t blocking = new_stream(cudaStreamDefault), free_one = new_stream();
  cudaGraph_t graph;
  CHECK(cudaStreamBeginCapture(free_one, cudaStreamCaptureModeRelaxed));
  multiply_and_add<<<1, 1>>>(value.data, 1, 1);
  CHECK(cudaGetLastError());
  CHECK(cudaStreamEndCapture(free_one, &graph));
  CHECK(cudaStreamBeginCapture(blocking, cudaStreamCaptureModeRelaxed));
  multiply_and_add<<<1, 1>>>(value.data, 1, 1);
  EXPECT_ERROR(cudaGetLastError(), cudaErrorStreamCaptureImplicit);
  EXPECT_ERROR(cudaStreamEndCapture(blocking, &graph), cudaErrorStreamCaptureInvalidated);
  EXPECT(value.get()[0] == 2);
}

SCENARIO(what_a_capture_says_of_itself) {
  const Array<int> value({1});
  cudaStream_t stream = new_stream();
  cudaStreamCaptureStatus status;
  unsigned long long id, other_id;
  cudaGraph_t graph, ended;
  const cudaGraphNode_t* dependencies;
  size_t count;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  CHECK(cudaStreamGetCaptureInfo(stream, &status, &id, &graph, &dependencies, nullptr, &count));
  EXPECT(status == cudaStreamCaptureStatusActive && count == 0);
  multiply_and_add<<<1, 1, 0, stream>>>(value.data, 2, 0);
  CHECK(cudaStreamGetCaptureInfo(stream, &status, &other_id, nullptr, &dependencies, nullptr, &count));
  EXPECT(id == other_id && count == 1);

  // A node of one's own between captured ones.
  int calls = 0;
  cudaHostNodeParams parameters{increment, &calls};
  cudaGraphNode_t node, before = dependencies[0];
  CHECK(cudaGraphAddHostNode(&node, graph, &before, 1, &parameters));
  CHECK(cudaStreamUpdateCaptureDependencies(stream, &node, nullptr, 1, cudaStreamSetCaptureDependencies));
  multiply_and_add<<<1, 1, 0, stream>>>(value.data, 1, 5);
  CHECK(cudaStreamEndCapture(stream, &ended));
  EXPECT(ended == graph && node_count(graph) == 3);
  CHECK(cudaGraphNodeGetDependentNodes(node, nullptr, nullptr, &count));
  EXPECT(count == 1);
  CHECK(cudaGraphLaunch(instantiate(graph), stream));
  EXPECT(value.get()[0] == 7 && calls == 1);
}

SCENARIO(the_graph_of_a_failed_capture_is_gone) {
  cudaStream_t stream = new_stream();
  cudaStreamCaptureStatus status;
  cudaGraph_t graph, ended;
  size_t count;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  CHECK(cudaStreamGetCaptureInfo(stream, &status, nullptr, &graph, nullptr, nullptr, nullptr));
  EXPECT_ERROR(cudaDeviceSynchronize(), cudaErrorStreamCaptureUnsupported);
  EXPECT_ERROR(cudaStreamEndCapture(stream, &ended), cudaErrorStreamCaptureInvalidated);
  EXPECT_ERROR(cudaGraphGetNodes(graph, nullptr, &count), cudaErrorInvalidValue);
}

SCENARIO(capture_into_a_graph_that_is_there) {
  const Array<int> value({1});
  cudaStream_t stream = new_stream();
  cudaGraph_t graph, ended;
  cudaGraphNode_t first;
  CHECK(cudaGraphCreate(&graph, 0));
  const cudaMemsetParams zero{value.data, 0, 0, 4, 1, 1};
  CHECK(cudaGraphAddMemsetNode(&first, graph, nullptr, 0, &zero));
  CHECK(cudaStreamBeginCaptureToGraph(stream, graph, &first, nullptr, 1, cudaStreamCaptureModeGlobal));
  multiply_and_add<<<1, 1, 0, stream>>>(value.data, 2, 3);
  CHECK(cudaStreamEndCapture(stream, &ended));
  EXPECT(ended == graph);
  cudaGraphExec_t executable = instantiate(graph);
  for (int i = 0; i < 2; ++i) CHECK(cudaGraphLaunch(executable, stream));
  EXPECT(value.get()[0] == 3);
}

SCENARIO(a_captured_launch_of_a_graph_is_a_node) {
  const Array<int> value({1});
  cudaStream_t stream = new_stream();
  cudaGraph_t inner, outer;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  multiply_and_add<<<1, 1, 0, stream>>>(value.data, 2, 1);
  CHECK(cudaStreamEndCapture(stream, &inner));
  cudaGraphExec_t executable = instantiate(inner);
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  CHECK(cudaGraphLaunch(executable, stream));
  CHECK(cudaGraphLaunch(executable, stream));
  CHECK(cudaStreamEndCapture(stream, &outer));
  EXPECT(value.get()[0] == 1 && node_count(outer) == 2);
  CHECK(cudaGraphLaunch(instantiate(outer), stream));
  EXPECT(value.get()[0] == 7);
}

SCENARIO(events_outside_of_a_graph) {
  const Array<int> value({1});
  cudaStream_t stream = new_stream();
  cudaEvent_t start, end;
  cudaGraph_t graph;
  CHECK(cudaEventCreate(&start));
  CHECK(cudaEventCreate(&end));
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  CHECK(cudaEventRecordWithFlags(start, stream, cudaEventRecordExternal));
  multiply_and_add<<<1, 1, 0, stream>>>(value.data, 2, 1);
  CHECK(cudaEventRecordWithFlags(end, stream, cudaEventRecordExternal));
  CHECK(cudaStreamWaitEvent(stream, start, cudaEventWaitExternal));
  CHECK(cudaStreamEndCapture(stream, &graph));
  EXPECT(node_count(graph) == 4);
  CHECK(cudaGraphLaunch(instantiate(graph), stream));
  float milliseconds;
  CHECK(cudaEventElapsedTime(&milliseconds, start, end));
  EXPECT(milliseconds > 0);
}

// ---- memory ----

template <class Work>
static cudaGraph_t captured(cudaStream_t stream, Work work) {
  cudaGraph_t graph;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  work();
  CHECK(cudaStreamEndCapture(stream, &graph));
  return graph;
}

SCENARIO(memory_of_a_graph) {
  const Array<int> result({0});
  cudaStream_t stream = new_stream();
  int* scratch;
  const cudaGraph_t graph = captured(stream, [&] {
    CHECK(cudaMallocAsync(&scratch, 4, stream));
    CHECK(cudaMemsetAsync(scratch, 0, 4, stream));
    multiply_and_add<<<1, 1, 0, stream>>>(scratch, 1, 8);
    copy_value<<<1, 1, 0, stream>>>(result.data, scratch);
    CHECK(cudaFreeAsync(scratch, stream));
  });
  cudaPointerAttributes attributes;
  CHECK(cudaPointerGetAttributes(&attributes, scratch));
  EXPECT(attributes.type == cudaMemoryTypeDevice);
  cudaGraphExec_t executable = instantiate(graph);
  for (int i = 0; i < 2; ++i) {
    CHECK(cudaMemset(result.data, 0, 4));
    CHECK(cudaGraphLaunch(executable, stream));
    EXPECT(result.get()[0] == 8);
  }
  uint64_t used, most;
  CHECK(cudaDeviceGetGraphMemAttribute(0, cudaGraphMemAttrUsedMemCurrent, &used));
  CHECK(cudaDeviceGetGraphMemAttribute(0, cudaGraphMemAttrUsedMemHigh, &most));
  EXPECT(used == 0 && most >= 4);
  multiply_and_add<<<1, 1, 0, stream>>>(scratch, 1, 8);  // Now it is not there.
  EXPECT_ERROR(cudaStreamSynchronize(stream), cudaErrorIllegalAddress);
}

SCENARIO(memory_that_outlives_a_launch) {
  cudaStream_t stream = new_stream();
  int* place;
  const cudaGraph_t graph = captured(stream, [&] {
    CHECK(cudaMallocAsync(&place, 4, stream));
    CHECK(cudaMemsetAsync(place, 0, 4, stream));
    multiply_and_add<<<1, 1, 0, stream>>>(place, 1, 8);
  });
  cudaGraphExec_t executable = instantiate(graph);
  int value;
  CHECK(cudaGraphLaunch(executable, stream));
  CHECK(cudaMemcpy(&value, place, 4, cudaMemcpyDeviceToHost));
  EXPECT(value == 8);
  EXPECT_ERROR(cudaGraphLaunch(executable, stream), cudaErrorInvalidValue);
  CHECK(cudaFreeAsync(place, stream));
  CHECK(cudaGraphLaunch(executable, stream));
  CHECK(cudaFree(place));
  cudaGraphExec_t freeing = instantiate(graph, cudaGraphInstantiateFlagAutoFreeOnLaunch);
  CHECK(cudaGraphLaunch(freeing, stream));
  CHECK(cudaGraphLaunch(freeing, stream));
}

SCENARIO(memory_of_a_graph_that_never_ran) {
  cudaStream_t stream = new_stream();
  int *place, *other;
  const cudaGraph_t graph = captured(stream, [&] { CHECK(cudaMallocAsync(&place, 1 << 20, stream)); });
  CHECK(cudaGraphDestroy(graph));
  CHECK(cudaMallocAsync(&other, 1 << 20, stream));
  EXPECT(place != other);  // Nobody else gets it while its owner has not freed it.
  CHECK(cudaFreeAsync(place, stream));
  EXPECT_ERROR(cudaFreeAsync(place, stream), cudaErrorInvalidValue);
  CHECK(cudaFreeAsync(other, stream));
}

SCENARIO(memory_is_freed_once) {
  cudaStream_t stream = new_stream();
  int* place;
  const cudaGraph_t graph = captured(stream, [&] { CHECK(cudaMallocAsync(&place, 4, stream)); });
  CHECK(cudaGraphLaunch(instantiate(graph), stream));
  CHECK(cudaFree(place));
  EXPECT_ERROR(cudaFree(place), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaFreeAsync(place, stream), cudaErrorInvalidValue);
}

SCENARIO(a_graph_that_uses_freed_memory) {
  int *freed, *other;
  cudaStream_t stream = new_stream();
  CHECK(cudaMalloc(&freed, 4));
  CHECK(cudaMalloc(&other, 4));
  const cudaGraph_t graph =
      captured(stream, [&] { CHECK(cudaMemcpyAsync(other, freed, 4, cudaMemcpyDeviceToDevice, stream)); });
  CHECK(cudaFree(freed));
  EXPECT_ERROR(cudaGraphLaunch(instantiate(graph), stream), cudaErrorIllegalAddress);
  EXPECT_ERROR(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
}
