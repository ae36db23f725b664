// What the checks of a launch found, each defect once with the number of times it was seen.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace flopcuda::ptxvm {

enum class Check : uint8_t {
  kBounds,         // access outside every registered allocation, or a write to read-only memory
  kAlignment,      // address not a multiple of the access's size
  kUninitialised,  // shared or local memory read before it was written
  kRace,           // two threads at one place of shared memory, one of them writing, with no barrier between them
  kBarrier,        // a barrier that not all of its threads reach
  kSyncMask,       // a lane named by the mask of a .sync instruction does not come, or names itself not
  kDeadlock,       // every thread left waits for another
  kRunaway,        // a warp went over its instruction budget
  kTrap,           // trap, or a failed assertion
  kCall,           // a call through a bad pointer, or local memory exhausted by recursion
};
inline constexpr int kCheckCount = 10;
inline constexpr const char* kCheckNames[kCheckCount] = {"bounds",    "alignment", "uninitialised", "race", "barrier",
                                                         "sync_mask", "deadlock",  "runaway",       "trap", "call"};

struct Finding {
  Check check = Check::kBounds;
  uint32_t instruction = 0;  // index into Program::info
  std::array<uint32_t, 3> block{};
  std::array<uint32_t, 3> thread{};
  uint64_t address = 0;
  std::string message;
  uint64_t count = 0;  // lanes that showed it
};

// Shared by the workers of a launch.
class Findings {
 public:
  explicit Findings(uint32_t enabled) : enabled_(enabled) {}

  bool enabled(Check check) const { return enabled_ >> static_cast<int>(check) & 1; }

  // Counts one occurrence; make() builds the finding when it is the first of its kind at this instruction.
  template <class Make>
  void add(Check check, uint32_t instruction, Make make) {
    if (!enabled(check)) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto [entry, added] = position_.emplace(std::make_pair(check, instruction), list_.size());
    if (added) {
      list_.push_back(make());
      list_.back().check = check;
      list_.back().instruction = instruction;
    }
    ++list_[entry->second].count;
  }

  std::vector<Finding> take() { return std::move(list_); }

 private:
  uint32_t enabled_;
  std::mutex mutex_;
  std::map<std::pair<Check, uint32_t>, size_t> position_;
  std::vector<Finding> list_;
};

}  // namespace flopcuda::ptxvm
