// The memory that a launch may touch.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>

#include "execute/device_heap.h"

namespace flopcuda::ptxvm {

struct Allocation {
  uint64_t begin = 0, end = 0;
  bool writable = true;
  std::string name;

  bool exists() const { return end != 0; }
  bool holds(uint64_t address) const { return address >= begin && address < end; }
};

class MemoryMap {
 public:
  explicit MemoryMap(std::shared_ptr<DeviceHeap> heap = std::make_shared<DeviceHeap>()) : heap_(std::move(heap)) {
    for (const DeviceHeap::Block& block : heap_->live()) add_block(block);
  }

  void add(Allocation allocation) {
    const std::unique_lock<std::shared_mutex> lock(mutex_);
    longest_ = std::max(longest_, allocation.end - allocation.begin);
    list_.emplace(allocation.begin, std::move(allocation));
  }

  // Whatever was found before may be gone.
  void remove(uint64_t begin) {
    const std::unique_lock<std::shared_mutex> lock(mutex_);
    list_.erase(begin);
    version_.fetch_add(1, std::memory_order_release);
  }
  uint64_t version() const { return version_.load(std::memory_order_acquire); }

  // An allocation that holds [begin, end) whole, a writable one if there is a choice; none exists if there is none.
  Allocation find(uint64_t begin, uint64_t end) const {
    const std::shared_lock<std::shared_mutex> lock(mutex_);
    const Allocation* found = nullptr;
    for (auto entry = list_.upper_bound(begin); entry != list_.begin();) {
      const Allocation& candidate = (--entry)->second;
      if (end < begin || end - candidate.begin > longest_) break;
      if (end > candidate.end) continue;
      found = &candidate;
      if (candidate.writable) break;
    }
    return found ? *found : Allocation{};
  }

  // The allocation nearest to an address, to say in a message how far off it is.
  Allocation nearest(uint64_t address) const {
    const std::shared_lock<std::shared_mutex> lock(mutex_);
    const Allocation* best = nullptr;
    uint64_t distance = UINT64_MAX;
    for (const auto& [begin, a] : list_) {
      const uint64_t d = address < begin ? begin - address : address >= a.end ? address - a.end : 0;
      if (d < distance) distance = d, best = &a;
    }
    return best ? *best : Allocation{};
  }

  // ---- malloc and free in a kernel ----

  uint64_t allocate(uint64_t bytes) {
    const DeviceHeap::Block block = heap_->allocate(bytes);
    if (block.begin != 0) add_block(block);
    return block.begin;
  }
  bool release(uint64_t begin) {
    if (!heap_->release(begin)) return false;
    remove(begin);
    return true;
  }

 private:
  void add_block(const DeviceHeap::Block& block) { add({block.begin, block.begin + block.bytes, true, "malloc"}); }

  mutable std::shared_mutex mutex_;
  std::multimap<uint64_t, Allocation> list_;
  uint64_t longest_ = 0;
  std::atomic<uint64_t> version_{0};
  std::shared_ptr<DeviceHeap> heap_;
};

}  // namespace flopcuda::ptxvm
