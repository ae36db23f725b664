// See events.h.
#include "events.h"

#include "capture.h"
#include "error.h"
#include "handles.h"
#include "streams.h"

namespace flopcuda::vcuda {
namespace {

HandleTable<Event>& events() { return immortal<HandleTable<Event>>(); }

void create(cudaEvent_t* handle, unsigned flags) {
  require_pointer(handle);
  const unsigned known = cudaEventBlockingSync | cudaEventDisableTiming | cudaEventInterprocess;
  require((flags & ~known) == 0, cudaErrorInvalidValue);
  require(!(flags & cudaEventInterprocess) || (flags & cudaEventDisableTiming), cudaErrorInvalidValue);
  *handle = events().add<cudaEvent_t>(std::make_shared<Event>(current_device(), flags));
}

float milliseconds_between(const Event& start, const Event& end) {
  require(!((start.flags | end.flags) & cudaEventDisableTiming), cudaErrorInvalidResourceHandle);
  const auto from = start.recorded_at(), to = end.recorded_at();
  require(from && to, cudaErrorInvalidResourceHandle);
  return std::chrono::duration<float, std::milli>(*to - *from).count();
}

}  // namespace

void Event::record() {
  const std::lock_guard<std::mutex> lock(mutex_);
  recorded_at_ = Clock::now();
}

std::optional<Event::Clock::time_point> Event::recorded_at() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return recorded_at_;
}

std::shared_ptr<Event> event_of(cudaEvent_t handle) { return events().get(handle); }

}  // namespace flopcuda::vcuda

using namespace flopcuda::vcuda;

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return entry([&] { create(event, cudaEventDefault); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return entry([&] { create(event, flags); });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return entry_despite_fault([&] { events().remove(event); });
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t handle, unsigned flags) {
  return entry([&] {
    require(flags == cudaEventRecordDefault || flags == cudaEventRecordExternal, cudaErrorInvalidValue);
    const std::shared_ptr<Stream> stream = stream_of(handle);
    const std::shared_ptr<Event> recorded = event_of(event);
    require(recorded->device.ordinal == stream->device.ordinal, cudaErrorInvalidResourceHandle);
    record_event(*stream, recorded, flags == cudaEventRecordExternal);
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return cudaEventRecordWithFlags(event, stream, cudaEventRecordDefault);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  return entry([&] {
    require(flags == cudaEventWaitDefault || flags == cudaEventWaitExternal, cudaErrorInvalidValue);
    wait_for_event(stream_of(stream), event_of(event), flags == cudaEventWaitExternal);
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return entry([&] { require_not_captured(*event_of(event)); });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return entry([&] { require_not_captured(*event_of(event)); });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return entry([&] {
    const std::shared_ptr<Event> from = event_of(start), to = event_of(end);
    require_not_captured(*from);
    require_not_captured(*to);
    require_pointer(milliseconds) = milliseconds_between(*from, *to);
  });
}
