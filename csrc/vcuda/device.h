// The virtual devices: each has memory of its own that its kernels may touch, and the fault that ended it, if one did.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "architecture.h"
#include "cuda_api.h"
#include "execute/memory_map.h"

namespace flopcuda::vcuda {

// Where what is touched by the exit handlers of other libraries lives: it is never destroyed.
template <class T>
T& immortal() {
  static T& instance = *new T;
  return instance;
}

struct Device {
  explicit Device(int ordinal);

  const int ordinal;
  const Architecture& architecture;
  ptxvm::MemoryMap memory;                      // what its kernels may touch
  std::atomic<cudaError_t> fault{cudaSuccess};  // of a kernel; every call returns it from then on
  std::atomic<unsigned> flags{cudaDeviceScheduleAuto | cudaDeviceMapHost};
};

const std::vector<std::unique_ptr<Device>>& devices();
Device& device(int ordinal);  // an Error if there is none
Device& current_device();     // of this thread

int processor_count();  // multiprocessors of a device: the host's cores that it uses

// Held by what runs on a device and by what takes memory away: one piece of work at a time, over all devices.
std::mutex& execution_mutex();

// Every later call on the device fails with it, and so does this one.
[[noreturn]] void raise_fault(Device& device, cudaError_t fault);

// Lets a device start anew; cudaDeviceReset.
void reset(Device& device);

}  // namespace flopcuda::vcuda
