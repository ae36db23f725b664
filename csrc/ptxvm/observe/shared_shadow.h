// Watches a block's shared memory for races and for reads of what was never written.
//
// Two accesses to one place race when they are of different threads, at least one writes, they are not both atomic, and
// no barrier orders them. Order is kept as vector clocks, but most accesses never need them: a block-wide barrier
// orders everything, so an access is looked at only if it overlaps what the other kind touched since the last one.
// Reads are put in a log and entered into the word-by-word record when a write overlaps them.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "execute/pattern.h"

namespace flopcuda::ptxvm {

// A few intervals that cover what was touched; when there would be more, near ones become one.
class Extents {
 public:
  void clear() { count_ = 0; }
  bool overlap(int64_t low, int64_t high) const {
    for (int i = 0; i < count_; ++i) {
      if (low < high_[i] && low_[i] < high) return true;
    }
    return false;
  }
  void add(int64_t low, int64_t high) {
    for (int i = 0; i < count_; ++i) {
      if (low >= low_[i] && high <= high_[i]) return;
    }
    extend(low, high);
  }

 private:
  static constexpr int kCapacity = 8;
  void extend(int64_t low, int64_t high);
  void erase(int i);
  int count_ = 0;
  int64_t low_[kCapacity], high_[kCapacity];
};

class SharedShadow {
 public:
  struct Conflict {
    int lane = -1;
    int64_t address = 0;
    int other_thread = -1;  // -1: one of several
    bool other_wrote = false;
  };

  void reset(int64_t bytes, int warps, bool races, bool uninitialised);

  // The first race of this access with an earlier one; lane -1 without any. The access is recorded either way.
  enum class Kind : uint8_t { kRead, kWrite, kAtomic };
  Conflict access(int warp, int64_t base, const Pattern& pattern, Kind kind) {
    if (!races_) return {};
    const int64_t low = base + pattern.lowest, high = base + pattern.highest + pattern.bytes;
    if (kind == Kind::kRead) {
      read_.add(low, high);
      if (!written_.overlap(low, high)) {
        log_.push_back({&pattern, base, now_, static_cast<int16_t>(warp)});
        if (log_.size() >= kLogCapacity) enter_log(0, INT64_MAX);
        return {};
      }
    } else {
      written_.add(low, high);
      if (read_.overlap(low, high)) enter_log(low, high);
    }
    return enter(warp, base, pattern, kind);
  }

  // A copy in flight: any access, also by its own thread, races with it until it has landed.
  void begin_copy(int thread, int64_t address, int bytes);
  Conflict end_copy(int thread, int64_t address, int bytes);

  // Whether [base, base + bytes) of every lane was written; if not, *lane and *address say where.
  bool is_initialised(int64_t base, const Pattern& pattern, int* lane, int64_t* address) {
    if (!uninitialised_) return true;
    const int64_t low = base + pattern.lowest, high = base + pattern.highest + pattern.bytes;
    if (low >= known_low_ && high <= known_high_) return true;
    const Memo& memo = memo_[memo_index(base, &pattern)];
    if (memo.pattern == &pattern && memo.base == base) return true;
    return check_initialised(base, pattern, lane, address);
  }
  void initialise(int64_t base, const Pattern& pattern);
  void initialise(int64_t address, int bytes);

  // All threads of the block, some warps of it, some lanes of a warp.
  void block_barrier();
  void partial_barrier(const std::vector<uint32_t>& arrived, const std::vector<uint32_t>& released);
  void warp_barrier(int warp, uint32_t mask);

  // Pointers to patterns are about to become invalid.
  void forget_patterns() {
    enter_log(0, INT64_MAX);
    memo_.fill(Memo{});
  }

 private:
  void enter_log(int64_t low, int64_t high);  // the reads that overlap [low, high)
  static constexpr size_t kLogCapacity = 1 << 16;
  static constexpr uint16_t kNobody = 0xffff;
  static constexpr uint16_t kSeveral = 0xfffe;

  struct LogEntry {
    const Pattern* pattern;
    int64_t base;
    uint32_t time;
    int16_t warp;
  };
  struct Word {
    uint32_t write_time = 0;
    uint32_t read_time = 0;
    uint32_t reader_warps = 0;
    uint16_t writer = kNobody;
    uint16_t reader = kNobody;
    uint8_t write_bytes = 0;  // of the word, one bit each
    uint8_t read_bytes = 0;
    bool atomic = false;
    bool in_flight = false;
  };
  struct WarpClocks {
    uint32_t whole = 0;                           // last barrier of all lanes
    bool partial = false;                         // whether `lanes` holds anything
    std::array<uint32_t, kLanes * kLanes> lanes;  // [of][about]
    std::array<uint32_t, kLanes> warps{};         // about other warps
  };
  struct Memo {
    const Pattern* pattern = nullptr;
    int64_t base = 0;
  };

  static size_t memo_index(int64_t base, const Pattern* pattern) {
    const uint64_t key = static_cast<uint64_t>(base) * 0x9e3779b97f4a7c15ull ^
                         reinterpret_cast<uint64_t>(pattern) * 0xff51afd7ed558ccdull;
    return key >> 54;
  }
  bool ordered(int thread, int other, uint32_t time) const;
  bool readers_ordered(int thread, const Word& word) const;
  Conflict enter(int warp, int64_t base, const Pattern& pattern, Kind kind);
  void enter_lane(int thread, int64_t address, int bytes, uint32_t time, Kind kind, int lane, Conflict* conflict);
  bool check_initialised(int64_t base, const Pattern& pattern, int* lane, int64_t* address);

  bool races_ = false, uninitialised_ = false;
  Extents read_, written_;  // since the last block-wide barrier
  uint32_t now_ = 1;
  uint32_t block_time_ = 0;
  std::vector<LogEntry> log_;
  std::vector<Word> words_;
  std::vector<WarpClocks> warps_;
  std::vector<uint8_t> initialised_;
  int64_t known_low_ = 0, known_high_ = 0;  // an interval known to be written
  std::array<Memo, 1024> memo_;
};

}  // namespace flopcuda::ptxvm
