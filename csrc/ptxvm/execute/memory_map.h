// The memory that a launch may touch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <vector>

namespace flopcuda::ptxvm {

struct Allocation {
  uint64_t begin = 0, end = 0;
  bool writable = true;
  std::string name;
};

class MemoryMap {
 public:
  void add(Allocation allocation) {
    const std::unique_lock<std::shared_mutex> lock(mutex_);
    const auto after = std::upper_bound(list_.begin(), list_.end(), allocation.begin,
                                        [](uint64_t address, const Allocation& a) { return address < a.begin; });
    list_.insert(after, std::move(allocation));
  }

  void remove(uint64_t begin) {
    const std::unique_lock<std::shared_mutex> lock(mutex_);
    list_.erase(std::remove_if(list_.begin(), list_.end(), [&](const Allocation& a) { return a.begin == begin; }),
                list_.end());
  }

  // The allocation that holds [begin, end) whole; one without extent if there is none. Allocations may overlap.
  Allocation find(uint64_t begin, uint64_t end) const {
    const std::shared_lock<std::shared_mutex> lock(mutex_);
    auto entry = std::upper_bound(list_.begin(), list_.end(), begin,
                                  [](uint64_t address, const Allocation& a) { return address < a.begin; });
    while (entry != list_.begin()) {
      --entry;
      if (end <= entry->end && begin <= end) return *entry;
    }
    return {};
  }

  // The allocation nearest to an address, to say in a message how far off it is.
  Allocation nearest(uint64_t address) const {
    const std::shared_lock<std::shared_mutex> lock(mutex_);
    Allocation best;
    uint64_t distance = UINT64_MAX;
    for (const Allocation& a : list_) {
      const uint64_t d = address < a.begin ? a.begin - address : address >= a.end ? address - a.end : 0;
      if (d < distance) distance = d, best = a;
    }
    return best;
  }

 private:
  mutable std::shared_mutex mutex_;
  std::vector<Allocation> list_;
};

}  // namespace flopcuda::ptxvm
