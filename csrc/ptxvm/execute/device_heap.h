// The heap of malloc and free in kernels. What a kernel does not free outlives its launch, as on a device.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace flopcuda::ptxvm {

class DeviceHeap {
 public:
  struct Block {
    uint64_t begin = 0, bytes = 0;
  };

  // A block at 0 when the heap is full.
  Block allocate(uint64_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (bytes > kCapacity) return {};
    const uint64_t room = (bytes / kAlignment + 1) * kAlignment;
    const uint64_t begin = used_ + room <= kCapacity ? fresh(room) : vacant(room);
    if (begin == 0) return {};
    live_[begin] = bytes;
    return {begin, bytes};
  }

  // False if no block begins there. The host's memory is kept: other warps may still hold pointers to it.
  bool release(uint64_t begin) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = live_.find(begin);
    if (found == live_.end()) return false;
    vacant_.emplace((found->second / kAlignment + 1) * kAlignment, begin);
    live_.erase(found);
    return true;
  }

  std::vector<Block> live() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<Block> blocks;
    for (const auto& [begin, bytes] : live_) blocks.push_back({begin, bytes});
    return blocks;
  }

 private:
  static constexpr uint64_t kCapacity = uint64_t{256} << 20;
  static constexpr uint64_t kAlignment = 16;

  uint64_t fresh(uint64_t room) {
    memory_.emplace_back(std::calloc(room, 1), &std::free);
    used_ += memory_.back() ? room : 0;
    return reinterpret_cast<uint64_t>(memory_.back().get());
  }
  uint64_t vacant(uint64_t room) {
    const auto found = vacant_.lower_bound(room);
    if (found == vacant_.end()) return 0;
    const uint64_t begin = found->second;
    vacant_.erase(found);
    return begin;
  }

  mutable std::mutex mutex_;
  uint64_t used_ = 0;
  std::map<uint64_t, uint64_t> live_;         // bytes asked for, by place
  std::multimap<uint64_t, uint64_t> vacant_;  // places, by room
  std::vector<std::unique_ptr<void, void (*)(void*)>> memory_;
};

}  // namespace flopcuda::ptxvm
