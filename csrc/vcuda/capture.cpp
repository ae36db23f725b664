// See capture.h.
#include "capture.h"

#include <algorithm>

#include "error.h"

namespace flopcuda::vcuda {
namespace {

thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

unsigned long long next_capture_id = 1;

std::vector<std::shared_ptr<Capture>>& captures() { return immortal<std::vector<std::shared_ptr<Capture>>>(); }

bool is_active(const Capture& capture) { return capture.status == cudaStreamCaptureStatusActive; }

void invalidate(Capture& capture) { capture.status = cudaStreamCaptureStatusInvalidated; }

[[noreturn]] void invalidate_and_fail(Capture& capture, cudaError_t code) {
  invalidate(capture);
  fail(code);
}

void join(Stream& stream, const std::shared_ptr<Capture>& capture) {
  stream.capture = capture;
  stream.frontier.clear();
  capture->streams.push_back(&stream);
}

void add_to_frontier(Stream& stream, const std::vector<Node*>& nodes) {
  for (Node* node : nodes) {
    const auto known = std::find(stream.frontier.begin(), stream.frontier.end(), node);
    if (known == stream.frontier.end()) stream.frontier.push_back(node);
  }
}

// The legacy default stream waits for all blocking streams of its device, which a captured one can't be waited for.
void forbid_implicit_dependency(const Stream& stream) {
  if (!stream.is_legacy) return;
  for (const std::shared_ptr<Capture>& capture : captures()) {
    const auto waits_for = [&](const Stream* other) {
      return other->is_blocking() && other->device.ordinal == stream.device.ordinal;
    };
    const bool implied = std::any_of(capture->streams.begin(), capture->streams.end(), waits_for);
    if (implied && is_active(*capture)) invalidate_and_fail(*capture, cudaErrorStreamCaptureImplicit);
  }
}

// Null if the stream is not captured.
Capture* active_capture(const Stream& stream) {
  forbid_implicit_dependency(stream);
  Capture* capture = stream.capture.get();
  require(!capture || is_active(*capture), cudaErrorStreamCaptureInvalidated);
  return capture;
}

// Whether this thread may do nothing unsafe because of this capture.
bool forbids(const Capture& capture) {
  if (!is_active(capture) || thread_mode == cudaStreamCaptureModeRelaxed) return false;
  if (capture.thread == std::this_thread::get_id() && capture.mode != cudaStreamCaptureModeRelaxed) return true;
  return capture.mode == cudaStreamCaptureModeGlobal && thread_mode == cudaStreamCaptureModeGlobal;
}

void begin(Stream& stream, std::shared_ptr<Graph> graph, cudaGraph_t handle, const std::vector<Node*>& dependencies,
           cudaStreamCaptureMode mode) {
  require(mode >= cudaStreamCaptureModeGlobal && mode <= cudaStreamCaptureModeRelaxed, cudaErrorInvalidValue);
  require(!stream.is_legacy, cudaErrorStreamCaptureUnsupported);
  require(!stream.capture, cudaErrorIllegalState);
  auto capture = std::make_shared<Capture>(Capture{next_capture_id++, mode, std::this_thread::get_id(), &stream,
                                                   std::move(graph), handle, handle != nullptr});
  captures().push_back(capture);
  join(stream, capture);
  stream.frontier = dependencies;
}

// Whether everything that other streams captured is waited for by the origin.
bool is_joined(const Capture& capture) {
  const std::vector<Node*>& last = capture.origin->frontier;
  for (const Stream* stream : capture.streams) {
    for (const Node* node : stream->frontier) {
      if (std::none_of(last.begin(), last.end(), [&](const Node* end) { return is_reachable(*end, *node); }))
        return false;
    }
  }
  return true;
}

// Events that were captured may outlive it; the graph is no longer theirs.
std::shared_ptr<Graph> close(const std::shared_ptr<Capture>& capture) {
  invalidate(*capture);
  for (Stream* stream : capture->streams) {
    stream->capture = nullptr;
    stream->frontier.clear();
  }
  capture->streams.clear();
  auto& all = captures();
  all.erase(std::remove(all.begin(), all.end(), capture), all.end());
  return std::move(capture->graph);
}

// Also leaves the graph to its caller, to let go of when the lock is gone: it may have user objects.
cudaGraph_t end(Stream& stream, std::shared_ptr<Graph>& graph) {
  const std::shared_ptr<Capture> capture = stream.capture;
  require(capture != nullptr, cudaErrorIllegalState);
  if (capture->origin != &stream) invalidate_and_fail(*capture, cudaErrorStreamCaptureUnmatched);
  require(capture->mode == cudaStreamCaptureModeRelaxed || capture->thread == std::this_thread::get_id(),
          cudaErrorStreamCaptureWrongThread);
  const cudaError_t failure = !is_active(*capture)   ? cudaErrorStreamCaptureInvalidated
                              : !is_joined(*capture) ? cudaErrorStreamCaptureUnjoined
                                                     : cudaSuccess;
  graph = close(capture);
  if (failure) {
    if (capture->handle && !capture->is_into_callers_graph) remove_handle(capture->handle);
    fail(failure);
  }
  return capture->handle ? capture->handle : add_handle(graph);
}

}  // namespace

bool enter_into_capture(Stream& stream, Operation& operation) {
  const GraphLock lock(graph_mutex());
  Capture* capture = active_capture(stream);
  if (!capture) return false;
  stream.frontier = {&capture->graph->add(std::move(operation), stream.device, stream.frontier)};
  return true;
}

bool is_capturing(const Stream& stream) {
  const GraphLock lock(graph_mutex());
  return active_capture(stream) != nullptr;
}

void forbid_while_capturing() {
  const GraphLock lock(graph_mutex());
  bool forbidden = false;
  for (const std::shared_ptr<Capture>& capture : captures()) {
    if (!forbids(*capture)) continue;
    invalidate(*capture);
    forbidden = true;
  }
  require(!forbidden, cudaErrorStreamCaptureUnsupported);
}

void require_not_capturing(const Stream& stream) {
  const GraphLock lock(graph_mutex());
  if (Capture* capture = active_capture(stream)) invalidate_and_fail(*capture, cudaErrorStreamCaptureUnsupported);
}

void require_not_captured(const Event& event) {
  const GraphLock lock(graph_mutex());
  if (event.capture) invalidate_and_fail(*event.capture, cudaErrorCapturedEvent);
}

void record_event(Stream& stream, const std::shared_ptr<Event>& event, bool external) {
  {
    const GraphLock lock(graph_mutex());
    const bool captured = active_capture(stream) && !external;
    event->capture = captured ? stream.capture : nullptr;
    event->frontier = captured ? stream.frontier : std::vector<Node*>();
    if (captured) return;
  }
  submit(stream, EventRecord{event});
}

void wait_for_event(const std::shared_ptr<Stream>& stream, const std::shared_ptr<Event>& event, bool external) {
  const GraphLock lock(graph_mutex());
  Capture* capture = active_capture(*stream);
  if (external) {
    require(capture != nullptr, cudaErrorInvalidValue);
    return submit(*stream, EventWait{event});
  }
  if (!event->capture) {
    if (capture) invalidate_and_fail(*capture, cudaErrorStreamCaptureIsolation);
    return submit(*stream, EventWait{event});
  }
  require(is_active(*event->capture), cudaErrorStreamCaptureInvalidated);
  if (capture && capture != event->capture.get()) {
    invalidate(*event->capture);
    invalidate_and_fail(*capture, cudaErrorStreamCaptureMerge);
  }
  require(!stream->is_legacy, cudaErrorStreamCaptureImplicit);
  if (!capture) join(*stream, event->capture);
  add_to_frontier(*stream, event->frontier);
}

void leave_capture(Stream& stream) {
  std::shared_ptr<Graph> abandoned;
  const GraphLock lock(graph_mutex());
  if (!stream.capture) return;
  const std::shared_ptr<Capture> capture = stream.capture;
  invalidate(*capture);
  if (capture->origin == &stream) {
    abandoned = close(capture);
    return;
  }
  auto& streams = capture->streams;
  streams.erase(std::remove(streams.begin(), streams.end(), &stream), streams.end());
}

}  // namespace flopcuda::vcuda

using namespace flopcuda::vcuda;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    begin(*stream_of(stream), std::make_shared<Graph>(), nullptr, {}, mode);
  });
}

cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t stream, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                          const cudaGraphEdgeData*, size_t count, cudaStreamCaptureMode mode) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    begin(*stream_of(stream), graph_of(graph), graph, nodes_of(dependencies, count), mode);
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return entry([&] {
    std::shared_ptr<Graph> captured;
    const GraphLock lock(graph_mutex());
    require_pointer(graph) = nullptr;
    *graph = end(*stream_of(stream), captured);
  });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    const std::shared_ptr<Stream> stream = stream_of(handle);
    forbid_implicit_dependency(*stream);
    require_pointer(status) = stream->capture ? stream->capture->status : cudaStreamCaptureStatusNone;
  });
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, cudaStreamCaptureStatus* status, unsigned long long* id,
                                     cudaGraph_t* graph, const cudaGraphNode_t** dependencies,
                                     const cudaGraphEdgeData** edges, size_t* count) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    const std::shared_ptr<Stream> stream = stream_of(handle);
    forbid_implicit_dependency(*stream);
    Capture* capture = stream->capture.get();
    require_pointer(status) = capture ? capture->status : cudaStreamCaptureStatusNone;
    if (!capture || !is_active(*capture)) return;
    if (graph && !capture->handle) capture->handle = add_handle(capture->graph);
    if (id) *id = capture->id;
    if (graph) *graph = capture->handle;
    if (dependencies) *dependencies = reinterpret_cast<const cudaGraphNode_t*>(stream->frontier.data());
    if (edges) *edges = nullptr;
    if (count) *count = stream->frontier.size();
  });
}

cudaError_t cudaStreamUpdateCaptureDependencies(cudaStream_t handle, cudaGraphNode_t* dependencies,
                                                const cudaGraphEdgeData*, size_t count, unsigned flags) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    const std::shared_ptr<Stream> stream = stream_of(handle);
    require(active_capture(*stream) != nullptr, cudaErrorIllegalState);
    if (flags == cudaStreamSetCaptureDependencies) stream->frontier.clear();
    add_to_frontier(*stream, nodes_of(dependencies, count));
  });
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  return entry([&] { std::swap(require_pointer(mode), thread_mode); });
}
