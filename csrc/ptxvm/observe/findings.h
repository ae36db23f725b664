// What the checks of a launch found: each defect once at an instruction, as the lowest thread of the lowest block
// showed it, with the number of lanes that did. Neither the order of blocks and warps nor the number of host threads
// matters.
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
  kCall,           // a call through a bad pointer, or the stack exhausted by recursion
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

// Of one block.
class BlockFindings {
 public:
  struct Entry {
    int thread = 0;  // of the block, in order
    uint64_t address = 0;
    std::string message;
    uint64_t count = 0;
  };
  using List = std::map<std::pair<uint32_t, Check>, Entry>;  // by instruction

  explicit BlockFindings(uint32_t enabled) : enabled_(enabled) {}

  bool enabled(Check check) const { return enabled_ >> static_cast<int>(check) & 1; }

  // So many lanes showed it, `thread` is the lowest; describe() gives the message if no lower one did before.
  template <class Describe>
  void add(Check check, uint32_t instruction, int thread, uint64_t lanes, uint64_t address, Describe describe) {
    if (!enabled(check)) return;
    const auto [found, added] = list_.try_emplace({instruction, check});
    Entry& entry = found->second;
    entry.count += lanes;
    if (!added && thread >= entry.thread) return;
    entry.thread = thread;
    entry.address = address;
    entry.message = describe();
  }

  List take() { return std::exchange(list_, {}); }

 private:
  uint32_t enabled_;
  List list_;
};

// Of the launch. Blocks are merged in the order in which they were handed out, up to one that stopped the launch.
class LaunchFindings {
 public:
  void merge(uint64_t ticket, const std::array<uint32_t, 3>& block, BlockFindings::List list, bool is_last) {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting_.emplace(ticket, Block{block, std::move(list), is_last});
    for (auto next = waiting_.begin(); !over_ && next != waiting_.end() && next->first == merged_; ++merged_) {
      for (auto& [key, entry] : next->second.list) absorb(key, next->second.coordinates, entry);
      over_ = next->second.is_last;
      next = waiting_.erase(next);
    }
  }

  // In the order of the text.
  std::vector<Finding> take(const std::array<uint32_t, 3>& block_extent) {
    std::vector<Finding> result;
    for (auto& [key, entry] : list_) {
      const uint32_t thread = static_cast<uint32_t>(entry.first.thread);
      const uint32_t row = thread / block_extent[0];
      result.push_back({key.second,
                        key.first,
                        entry.block,
                        {thread % block_extent[0], row % block_extent[1], row / block_extent[1]},
                        entry.first.address,
                        std::move(entry.first.message),
                        entry.first.count});
    }
    return result;
  }

 private:
  using Coordinates = std::array<uint32_t, 3>;
  struct Block {
    Coordinates coordinates;
    BlockFindings::List list;
    bool is_last;
  };
  struct Merged {
    Coordinates block{};
    BlockFindings::Entry first;
  };

  void absorb(const std::pair<uint32_t, Check>& key, const Coordinates& block, BlockFindings::Entry& entry) {
    const auto [found, added] = list_.try_emplace(key);
    Merged& known = found->second;
    const auto order = [](const Coordinates& c) { return std::array<uint32_t, 3>{c[2], c[1], c[0]}; };
    const uint64_t count = known.first.count + entry.count;
    if (added || order(block) < order(known.block)) known = {block, std::move(entry)};
    known.first.count = count;
  }

  std::mutex mutex_;
  uint64_t merged_ = 0;  // blocks
  bool over_ = false;
  std::map<uint64_t, Block> waiting_;  // for those before them
  std::map<std::pair<uint32_t, Check>, Merged> list_;
};

}  // namespace flopcuda::ptxvm
