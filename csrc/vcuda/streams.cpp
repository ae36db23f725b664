// See streams.h.
#include "streams.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <utility>

#include "capture.h"
#include "error.h"
#include "handles.h"

namespace flopcuda::vcuda {
namespace {

constexpr int kGreatestPriority = -5;

std::atomic<unsigned long long> next_id{1};

thread_local bool none_is_own_stream = false;

HandleTable<Stream>& streams() { return immortal<HandleTable<Stream>>(); }

std::shared_ptr<Stream> legacy_stream(Device& device) {
  static const auto& all = *[] {
    auto* made = new std::vector<std::shared_ptr<Stream>>;
    for (const auto& entry : devices()) {
      made->push_back(std::make_shared<Stream>(*entry, cudaStreamDefault, 0));
      made->back()->is_legacy = true;
    }
    return made;
  }();
  return all[static_cast<size_t>(device.ordinal)];
}

std::shared_ptr<Stream> per_thread_stream(Device& device) {
  thread_local std::map<int, std::shared_ptr<Stream>> all;
  std::shared_ptr<Stream>& stream = all[device.ordinal];
  if (!stream) stream = std::make_shared<Stream>(device, cudaStreamDefault, 0);
  return stream;
}

void create(cudaStream_t* handle, unsigned flags, int priority) {
  require_pointer(handle);
  require((flags & ~static_cast<unsigned>(cudaStreamNonBlocking)) == 0, cudaErrorInvalidValue);
  priority = std::clamp(priority, kGreatestPriority, 0);
  *handle = streams().add<cudaStream_t>(std::make_shared<Stream>(current_device(), flags, priority));
}

}  // namespace

Stream::Stream(Device& device_, unsigned flags_, int priority_)
    : device(device_), flags(flags_), priority(priority_), id(next_id++) {}

Stream::~Stream() { leave_capture(*this); }

OwnDefaultStream::OwnDefaultStream() : before_(std::exchange(none_is_own_stream, true)) {}
OwnDefaultStream::~OwnDefaultStream() { none_is_own_stream = before_; }

std::shared_ptr<Stream> stream_of(cudaStream_t handle) {
  if (handle == nullptr && none_is_own_stream) handle = cudaStreamPerThread;
  if (handle == nullptr || handle == cudaStreamLegacy) return legacy_stream(current_device());
  if (handle == cudaStreamPerThread) return per_thread_stream(current_device());
  return streams().get(handle);
}

void submit(Stream& stream, Operation operation) {
  if (!enter_into_capture(stream, operation)) execute(operation, stream.device);
}

}  // namespace flopcuda::vcuda

using namespace flopcuda::vcuda;

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return entry([&] { create(stream, cudaStreamDefault, 0); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return entry([&] { create(stream, flags, 0); });
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  return entry([&] { create(stream, flags, priority); });
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return entry_despite_fault([&] { streams().remove(stream); });
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return entry([&] {
    if (least) *least = 0;
    if (greatest) *greatest = kGreatestPriority;
  });
}

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int* priority) {
  return entry([&] { require_pointer(priority) = stream_of(stream)->priority; });
}

cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned* flags) {
  return entry([&] { require_pointer(flags) = stream_of(stream)->flags; });
}

cudaError_t cudaStreamGetId(cudaStream_t stream, unsigned long long* id) {
  return entry([&] { require_pointer(id) = stream_of(stream)->id; });
}

cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* ordinal) {
  return entry([&] { require_pointer(ordinal) = stream_of(stream)->device.ordinal; });
}

// What an attribute asks for has no effect; it is kept for who asks.
cudaError_t cudaStreamSetAttribute(cudaStream_t handle, cudaStreamAttrID id, const cudaStreamAttrValue* value) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    stream_of(handle)->attributes[id] = require_pointer(value);
  });
}

cudaError_t cudaStreamGetAttribute(cudaStream_t handle, cudaStreamAttrID id, cudaStreamAttrValue* value) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    require_pointer(value) = stream_of(handle)->attributes[id];
  });
}

cudaError_t cudaStreamCopyAttributes(cudaStream_t to, cudaStream_t from) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    stream_of(to)->attributes = stream_of(from)->attributes;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return entry([&] { require_not_capturing(*stream_of(stream)); });
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return entry([&] { require_not_capturing(*stream_of(stream)); });
}

cudaError_t cudaStreamAddCallback(cudaStream_t handle, cudaStreamCallback_t function, void* argument, unsigned flags) {
  return entry([&] {
    require(function && flags == 0, cudaErrorInvalidValue);
    const std::shared_ptr<Stream> stream = stream_of(handle);
    require_not_capturing(*stream);
    submit(*stream, StreamCallback{function, handle, argument});
  });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* argument) {
  return entry([&] {
    require(function != nullptr, cudaErrorInvalidValue);
    submit(*stream_of(stream), HostCall{function, argument});
  });
}
