// Events: a moment on the host's clock, or a place in a graph that is being captured.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "cuda_api.h"
#include "device.h"

namespace flopcuda::vcuda {

struct Capture;
struct Node;

struct Event {
  Event(Device& device, unsigned flags) : device(device), flags(flags) {}

  using Clock = std::chrono::steady_clock;

  Device& device;
  const unsigned flags;

  void record();
  std::optional<Clock::time_point> recorded_at() const;

  // When it was last recorded in a stream under capture. Guarded by graph_mutex().
  std::shared_ptr<Capture> capture;
  std::vector<Node*> frontier;

 private:
  mutable std::mutex mutex_;
  std::optional<Clock::time_point> recorded_at_;
};

std::shared_ptr<Event> event_of(cudaEvent_t handle);
inline cudaEvent_t handle_of(Event& event) { return reinterpret_cast<cudaEvent_t>(&event); }

}  // namespace flopcuda::vcuda
