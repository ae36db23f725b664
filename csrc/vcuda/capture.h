// Stream capture: operations become nodes of a graph instead of being run.
#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "cuda_api.h"
#include "events.h"
#include "graph.h"
#include "streams.h"

namespace flopcuda::vcuda {

struct Capture {
  const unsigned long long id;
  const cudaStreamCaptureMode mode;
  const std::thread::id thread;  // that began it
  const Stream* origin;          // where it began and has to end
  std::shared_ptr<Graph> graph;
  cudaGraph_t handle;  // null until somebody asks for it
  const bool is_into_callers_graph;
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusActive;
  std::vector<Stream*> streams;  // that have joined, the origin first
};

// Whether the operation is a node now.
bool enter_into_capture(Stream& stream, Operation& operation);

bool is_capturing(const Stream& stream);

// Calls that could mean anything to a capture going on: cudaErrorStreamCaptureUnsupported, which ends the capture.
void forbid_while_capturing();
void require_not_capturing(const Stream& stream);
void require_not_captured(const Event& event);

void record_event(Stream& stream, const std::shared_ptr<Event>& event, bool external);
void wait_for_event(const std::shared_ptr<Stream>& stream, const std::shared_ptr<Event>& event, bool external);

// The stream is about to vanish.
void leave_capture(Stream& stream);

}  // namespace flopcuda::vcuda
