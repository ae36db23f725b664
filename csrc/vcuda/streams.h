// Streams. Work runs on the calling thread when it is put into one, so everything is done, and in order, when the call
// returns; what a stream keeps is who may use it and whether it is being captured.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "cuda_api.h"
#include "device.h"
#include "operations.h"

namespace flopcuda::vcuda {

struct Capture;
struct Node;

struct Stream {
  Stream(Device& device, unsigned flags, int priority);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  Device& device;
  const unsigned flags;
  const int priority;
  const unsigned long long id;
  bool is_legacy = false;

  // Guarded by graph_mutex().
  std::shared_ptr<Capture> capture;
  std::vector<Node*> frontier;  // of the graph being captured: what the next node depends on
  std::map<cudaStreamAttrID, cudaStreamAttrValue> attributes;

  bool is_blocking() const { return !(flags & cudaStreamNonBlocking); }
};

// Also of the default streams, which are the current device's.
std::shared_ptr<Stream> stream_of(cudaStream_t handle);

// While it lives, no stream means the thread's own and not the legacy default.
class OwnDefaultStream {
 public:
  OwnDefaultStream();
  ~OwnDefaultStream();

 private:
  const bool before_;
};

// Runs an operation, or enters it into the graph that the stream is captured to.
void submit(Stream& stream, Operation operation);

}  // namespace flopcuda::vcuda
