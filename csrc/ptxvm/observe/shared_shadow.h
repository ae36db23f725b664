// Watches a block's shared memory for races and for reads of what was never written.
//
// Two accesses to one place race when they are of different threads, at least one writes, they are not both atomic, and
// no barrier orders them. Order is kept as vector clocks, but most accesses never need them: a block-wide barrier
// orders everything, so an access is looked at only if it overlaps what the other kind touched since the last one.
// Then a record of each word tells whether it may race with an earlier one; only if so is it compared with all of them.
// Both ends of a race are reported, so that it does not matter which warp came first; for the same reason a read that
// races with a write is not reported as one of uninitialised memory.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "decode/program.h"
#include "execute/pattern.h"
#include "observe/findings.h"

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

// What an instruction of a warp did to shared memory.
struct SharedAccess {
  enum Kind : uint8_t {
    kReads = 1,
    kWrites = 2,
    kAtomic = 4,    // or another strong operation: two of them do not race
    kReplaces = 8,  // what it writes does not depend on what was there
  };
  static constexpr uint8_t kStore = kWrites | kReplaces;

  const Pattern* pattern = nullptr;
  int64_t base = 0;
  uint32_t instruction = 0;
  uint32_t mask = 0;  // of the pattern's lanes
  int16_t warp = 0;
  uint8_t kind = 0;
  uint8_t element = 1;  // bytes of one element of a vector
  uint32_t time = 0;    // set by the shadow, as the number of times that it was done again just so
  uint32_t repeats = 0;

  int64_t low() const { return base + pattern->lowest; }
  int64_t high() const { return base + pattern->highest + pattern->bytes; }
  int64_t at(int lane) const { return base + pattern->relative[lane]; }
  int thread(int lane) const { return warp * kLanes + lane; }
  bool conflicts_with(const SharedAccess& other) const {
    return ((kind | other.kind) & kWrites) && !(kind & other.kind & kAtomic);
  }
  bool is_repeated_by(const SharedAccess& other) const {
    return instruction == other.instruction && warp == other.warp && pattern == other.pattern && base == other.base &&
           mask == other.mask && time == other.time;
  }
};

class SharedShadow {
 public:
  explicit SharedShadow(BlockFindings& findings) : findings_(findings) {}

  void reset(const Program& program, int64_t bytes, int warps);
  // Memory that holds something from the beginning.
  void initialise(int64_t address, int64_t bytes);

  void access(SharedAccess access) {
    const size_t index = checks_races_ ? watch_order(access) : 0;
    if (checks_uninitialised_) watch_values(access, index);
  }

  // A copy in flight: any access, also by its own thread, races with it until it has landed. Returns its number.
  size_t begin_copy(SharedAccess access);
  // Some of its lanes have landed.
  void end_copy(size_t copy, uint32_t lanes);

  void block_barrier();
  // Named barriers: who arrives makes known what it knows, which those that wait learn.
  using Knowledge = std::array<uint32_t, kLanes>;  // until which time, of each warp
  void arrive(int warp, Knowledge& knowledge);
  void learn(int warp, const Knowledge& knowledge);
  void warp_barrier(int warp, uint32_t mask);

  // The block has ended: what was found is complete.
  void finish();

  // Patterns that go out of use are kept as long as an access refers to them.
  void retire(std::vector<std::unique_ptr<Pattern>> patterns);

 private:
  static constexpr size_t kLongHistory = 1 << 12;  // from here on repetitions are not entered again
  // Beyond these some races of a block that has many are not seen.
  static constexpr size_t kHistoryCapacity = 1 << 16;
  static constexpr int64_t kMostComparisons = 50'000'000;

  // Accesses of one kind to a word since the last block-wide barrier: an upper bound in every respect.
  struct Crowd {
    uint32_t time = 0;   // of the latest
    uint32_t warps = 0;  // one bit each
    uint32_t lanes = 0;  // of any of them
  };
  struct Word {
    Crowd reads, writes, atomics;
    uint8_t read_bytes = 0, written_bytes = 0, atomic_bytes = 0;  // one bit each

    void add(uint8_t kind, int thread, uint32_t time, uint8_t bytes);
  };
  // Most words are touched by one thread only between two block-wide barriers.
  struct Owner {
    uint32_t time = 0;  // of the latest access; all of this is stale where it is older than block_time_
    uint16_t thread = 0;
    uint8_t bytes = 0;
    uint8_t kind = 0;  // kCrowd: ask the word
  };
  static constexpr uint8_t kCrowd = 0;
  struct WarpClocks {
    uint32_t whole = 0;                           // last barrier of all lanes
    bool partial = false;                         // whether `lanes` holds anything
    std::array<uint32_t, kLanes * kLanes> lanes;  // [of][about]
    Knowledge warps{};                            // about other warps
  };
  struct Race {
    int64_t address = -1;
    int other_thread = 0;
    uint32_t other_instruction = 0;
    uint8_t other_kind = 0;
  };
  struct Unwritten {
    int64_t address = 0;
    int times = 0;
  };
  // Of one access, by lane.
  struct Defects {
    uint32_t racing = 0, uninitialised = 0;
    std::array<Race, kLanes> races;
    std::array<Unwritten, kLanes> unwritten;

    void add_race(int lane, const Race& race);
    void add_unwritten(int lane, int64_t address);
  };
  struct Copy {
    SharedAccess access;  // its mask: lanes in flight
    std::unique_ptr<Defects> defects;

    Defects& found() {
      if (!defects) defects = std::make_unique<Defects>();
      return *defects;
    }
  };
  struct Touch {
    uint32_t stamp = 0;
    uint32_t lanes = 0;
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

  // ---- order ----

  // Returns the access's place in the history.
  size_t watch_order(SharedAccess& access) {
    access.time = now_;
    size_t place = history_.size();
    if (place >= kLongHistory && is_repetition(access, place)) return place;
    history_.push_back(access);
    const int64_t low = access.low(), high = access.high();
    bool suspicious = flying_.overlap(low, high);
    if (access.kind & SharedAccess::kWrites) {
      written_.add(low, high);
      if (read_.overlap(low, high)) enter_reads(low, high);
      suspicious |= enter(access) || racing_;
    } else {
      read_.add(low, high);
      if (written_.overlap(low, high))
        suspicious |= enter(access) || racing_;
      else
        unentered_.push_back(static_cast<uint32_t>(place));
    }
    if (suspicious) compare(access, [this, place]() -> Defects& { return defects_[place]; });
    return place;
  }
  bool is_repetition(const SharedAccess& access, size_t& place);
  bool ordered(int thread, const Crowd& crowd) const;
  bool ordered(int thread, int other, uint32_t time) const;
  bool enter(const SharedAccess& access);
  bool may_race(const SharedAccess& access);
  template <class Visit>
  void for_each_word(const SharedAccess& access, int lane, Visit visit) const;
  Word& crowd_of(size_t word);
  bool clashes(const SharedAccess& access, int thread, const Word& word, uint8_t touched) const;
  void enter_reads(int64_t low, int64_t high);
  // Compares with all accesses that may race; own() gives the place for what is found of this one.
  void compare(const SharedAccess& access, const std::function<Defects&()>& own);
  template <class Visit>
  void for_each_overlap(const SharedAccess& access, const SharedAccess& other, Visit visit) const;
  void mark_lanes(const SharedAccess& access);
  void forget_history();
  void settle();
  void report(const SharedAccess& access, const Defects& defects);
  std::string describe(const SharedAccess& access, const Race& race) const;

  // ---- values ----

  void watch_values(const SharedAccess& access, size_t index) {
    if ((access.kind & SharedAccess::kReads) && !is_initialised(access)) find_unwritten(access, index);
    if (access.kind & SharedAccess::kReplaces) initialise(access);
  }
  bool is_initialised(const SharedAccess& access) const {
    if (access.low() >= known_low_ && access.high() <= known_high_) return true;
    const Memo& memo = memo_[memo_index(access.base, access.pattern)];
    return memo.pattern == access.pattern && memo.base == access.base;
  }
  void find_unwritten(const SharedAccess& access, size_t index);
  void remember_initialised(const SharedAccess& access);
  void initialise(const SharedAccess& access);

  BlockFindings& findings_;
  const Program* program_ = nullptr;
  bool checks_races_ = false, checks_uninitialised_ = false;

  uint32_t now_ = 1;
  uint32_t block_time_ = 1;  // of the last block-wide barrier
  std::vector<WarpClocks> warps_;
  Extents read_, written_;             // since then
  std::vector<SharedAccess> history_;  // since then
  std::array<size_t, 1024> latest_{};  // place there of the last access by an instruction and a warp
  std::vector<uint32_t> unentered_;    // those reads of it that the words do not know
  std::map<size_t, Defects> defects_;  // by place in the history
  bool racing_ = false;                // a race was found since then
  int64_t comparisons_ = 0;            // of the block
  std::vector<Owner> owners_;          // by word
  std::vector<Word> words_;
  std::map<size_t, Copy> copies_;  // in flight, by number
  size_t copies_begun_ = 0;
  Extents flying_;
  std::vector<Touch> touched_;  // by word: lanes of the access that is being compared
  uint32_t stamp_ = 0;
  std::vector<std::vector<std::unique_ptr<Pattern>>> retired_;

  std::vector<uint8_t> initialised_;
  int64_t known_low_ = 0, known_high_ = 0;  // an interval known to be written
  std::array<Memo, 1024> memo_;
};

}  // namespace flopcuda::ptxvm
