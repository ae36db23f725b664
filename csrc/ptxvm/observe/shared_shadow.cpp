// Watches a block's shared memory.
#include "observe/shared_shadow.h"

#include <algorithm>
#include <cstring>
#include <tuple>

#include "observe/text.h"
#include "observe/unwritten.h"

namespace flopcuda::ptxvm {
namespace {

constexpr uint32_t kLatest = 1u << 31;

}  // namespace

void Extents::erase(int i) {
  --count_;
  low_[i] = low_[count_];
  high_[i] = high_[count_];
}

void Extents::extend(int64_t low, int64_t high) {
  for (int i = 0; i < count_;) {
    if (low > high_[i] || low_[i] > high) {
      ++i;
      continue;
    }
    low = std::min(low, low_[i]);
    high = std::max(high, high_[i]);
    erase(i);
    i = 0;
  }
  if (count_ == kCapacity) {
    int nearest = 0;
    const auto gap = [&](int i) { return low_[i] > high ? low_[i] - high : low - high_[i]; };
    for (int i = 1; i < count_; ++i) nearest = gap(i) < gap(nearest) ? i : nearest;
    low = std::min(low, low_[nearest]);
    high = std::max(high, high_[nearest]);
    erase(nearest);
    return extend(low, high);
  }
  low_[count_] = low;
  high_[count_] = high;
  ++count_;
}

void SharedShadow::reset(const Program& program, int64_t bytes, int warps) {
  program_ = &program;
  checks_races_ = findings_.enabled(Check::kRace);
  checks_uninitialised_ = findings_.enabled(Check::kUninitialised);
  comparisons_ = 0;
  copies_.clear();
  flying_.clear();
  if (checks_races_) {
    const size_t words = static_cast<size_t>(bytes + 3) / 4;
    if (words_.size() != words || now_ > kLatest) {
      words_.assign(words, Word{});
      owners_.assign(words, Owner{});
      touched_.assign(words, Touch{});
      now_ = 0;
      stamp_ = 0;
    }
    block_barrier();
  }
  warps_.resize(static_cast<size_t>(warps));
  for (WarpClocks& clocks : warps_) {
    clocks.whole = 0;
    clocks.partial = false;
    clocks.warps.fill(0);
  }
  if (checks_uninitialised_) initialised_.assign(static_cast<size_t>(bytes) + 32, 0);
  known_low_ = known_high_ = 0;
  memo_.fill(Memo{});
}

// ---- order ----

bool SharedShadow::ordered(int thread, int other, uint32_t time) const {
  if (thread == other || time < block_time_) return true;
  const int warp = thread / kLanes, other_warp = other / kLanes;
  const WarpClocks& clocks = warps_[static_cast<size_t>(warp)];
  if (warp != other_warp) return time < clocks.warps[static_cast<size_t>(other_warp)];
  if (time < clocks.whole) return true;
  return clocks.partial && time < clocks.lanes[static_cast<size_t>((thread % kLanes) * kLanes + other % kLanes)];
}

// Whether a thread comes after all that may be in the crowd.
bool SharedShadow::ordered(int thread, const Crowd& crowd) const {
  for (uint32_t warps = crowd.warps; warps; warps &= warps - 1) {
    const int warp = __builtin_ctz(warps);
    if (warp != thread / kLanes) {
      if (!ordered(thread, warp * kLanes, crowd.time)) return false;
      continue;
    }
    for (uint32_t lanes = crowd.lanes; lanes; lanes &= lanes - 1) {
      if (!ordered(thread, warp * kLanes + __builtin_ctz(lanes), crowd.time)) return false;
    }
  }
  return true;
}

// Calls visit(index of a word, touched bytes of it).
template <class Visit>
void SharedShadow::for_each_word(const SharedAccess& access, int lane, Visit visit) const {
  const int64_t begin = access.at(lane), end = begin + access.pattern->bytes;
  for (int64_t at = begin; at < end;) {
    const int first = static_cast<int>(at & 3);
    const int last = static_cast<int>(std::min<int64_t>(4, first + end - at));
    visit(static_cast<size_t>(at) / 4, static_cast<uint8_t>((1 << last) - (1 << first)));
    at += last - first;
  }
}

void SharedShadow::Word::add(uint8_t kind, int thread, uint32_t time, uint8_t bytes) {
  const bool writes_to = kind & SharedAccess::kWrites, atomic = kind & SharedAccess::kAtomic;
  Crowd& crowd = !writes_to ? reads : atomic ? atomics : writes;
  crowd.time = time;
  crowd.warps |= 1u << (thread / kLanes);
  crowd.lanes |= 1u << (thread % kLanes);
  (!writes_to ? read_bytes : atomic ? atomic_bytes : written_bytes) |= bytes;
}

// A word with whatever is known of it since the last block-wide barrier.
SharedShadow::Word& SharedShadow::crowd_of(size_t index) {
  Owner& owner = owners_[index];
  Word& word = words_[index];
  if (owner.time >= block_time_ && owner.kind == kCrowd) return word;
  word = {};
  if (owner.time >= block_time_) word.add(owner.kind, owner.thread, owner.time, owner.bytes);
  owner.kind = kCrowd;
  return word;
}

bool SharedShadow::clashes(const SharedAccess& access, int thread, const Word& word, uint8_t touched) const {
  if ((word.written_bytes & touched) && !ordered(thread, word.writes)) return true;
  if ((word.atomic_bytes & touched) && !(access.kind & SharedAccess::kAtomic) && !ordered(thread, word.atomics))
    return true;
  return (word.read_bytes & touched) && (access.kind & SharedAccess::kWrites) && !ordered(thread, word.reads);
}

bool SharedShadow::may_race(const SharedAccess& access) {
  bool result = false;
  for (uint32_t lanes = access.mask; lanes && !result; lanes &= lanes - 1) {
    const int lane = __builtin_ctz(lanes);
    for_each_word(access, lane, [&](size_t index, uint8_t touched) {
      if (owners_[index].time < block_time_) return;
      result |= clashes(access, access.thread(lane), crowd_of(index), touched);
    });
  }
  return result;
}

// Enters the access into the words it touches; whether it may race with what they knew.
bool SharedShadow::enter(const SharedAccess& access) {
  bool suspicious = false;
  const bool reads = !(access.kind & SharedAccess::kWrites);
  const bool plain_write = !reads && !(access.kind & SharedAccess::kAtomic);
  for (uint32_t lanes = access.mask; lanes; lanes &= lanes - 1) {
    const int lane = __builtin_ctz(lanes), thread = access.thread(lane);
    for_each_word(access, lane, [&](size_t index, uint8_t touched) {
      Owner& owner = owners_[index];
      if (owner.time < block_time_) {
        owner = {access.time, static_cast<uint16_t>(thread), touched, access.kind};
        return;
      }
      Word& word = crowd_of(index);
      const bool clash = clashes(access, thread, word, touched);
      suspicious |= clash;
      // Whoever comes after a write that came after all others comes after them too, and so with reads.
      const uint8_t known = word.read_bytes | word.written_bytes | word.atomic_bytes;
      if (plain_write && !clash && !(known & ~touched)) word = {};
      if (reads && !(word.read_bytes & ~touched) && ordered(thread, word.reads)) word.reads = {};
      word.add(access.kind, thread, access.time, touched);
      owner.time = access.time;
    });
  }
  return suspicious;
}

void SharedShadow::enter_reads(int64_t low, int64_t high) {
  size_t kept = 0;
  for (uint32_t index : unentered_) {
    const SharedAccess& access = history_[index];
    if (access.low() < high && low < access.high())
      enter(access);
    else
      unentered_[kept++] = index;
  }
  unentered_.resize(kept);
}

void SharedShadow::mark_lanes(const SharedAccess& access) {
  ++stamp_;
  for (uint32_t lanes = access.mask; lanes; lanes &= lanes - 1) {
    const int lane = __builtin_ctz(lanes);
    for_each_word(access, lane, [&](size_t index, uint8_t) {
      Touch& touch = touched_[index];
      if (touch.stamp != stamp_) touch = {stamp_, 0};
      touch.lanes |= 1u << lane;
    });
  }
}

// Calls visit(lane, other's lane, first common byte) where both touch a byte; `access` is the one that was marked.
template <class Visit>
void SharedShadow::for_each_overlap(const SharedAccess& access, const SharedAccess& other, Visit visit) const {
  if (other.low() >= access.high() || access.low() >= other.high()) return;
  for (uint32_t others = other.mask; others; others &= others - 1) {
    const int other_lane = __builtin_ctz(others);
    const int64_t begin = other.at(other_lane), end = begin + other.pattern->bytes;
    for (int64_t word = begin / 4; word <= (end - 1) / 4; ++word) {
      const Touch& touch = touched_[static_cast<size_t>(word)];
      for (uint32_t lanes = touch.stamp == stamp_ ? touch.lanes : 0; lanes; lanes &= lanes - 1) {
        const int lane = __builtin_ctz(lanes);
        const int64_t common = std::max(begin, access.at(lane));
        if (common < std::min(end, access.at(lane) + access.pattern->bytes)) visit(lane, other_lane, common);
      }
    }
  }
}

void SharedShadow::compare(const SharedAccess& access, const std::function<Defects&()>& own) {
  comparisons_ += static_cast<int64_t>(history_.size());
  if (comparisons_ > kMostComparisons) return;
  mark_lanes(access);
  for (size_t i = 0; i < history_.size(); ++i) {
    const SharedAccess& other = history_[i];
    if (!access.conflicts_with(other)) continue;
    for_each_overlap(access, other, [&](int lane, int other_lane, int64_t address) {
      if (ordered(access.thread(lane), other.thread(other_lane), other.time)) return;
      racing_ = true;
      own().add_race(lane, {address, other.thread(other_lane), other.instruction, other.kind});
      defects_[i].add_race(other_lane, {address, access.thread(lane), access.instruction, access.kind});
    });
  }
  for (auto& [number, copy] : copies_) {
    for_each_overlap(access, copy.access, [&, &copy = copy](int lane, int other_lane, int64_t address) {
      const SharedAccess& other = copy.access;
      if (&other == &access && lane == other_lane) return;
      own().add_race(lane, {address, other.thread(other_lane), other.instruction, other.kind});
      copy.found().add_race(other_lane, {address, access.thread(lane), access.instruction, access.kind});
    });
  }
}

size_t SharedShadow::begin_copy(SharedAccess access) {
  access.kind = SharedAccess::kStore;
  access.time = ++now_;
  Copy& copy = copies_[++copies_begun_];
  copy.access = access;
  if (!checks_races_) return copies_begun_;
  const int64_t low = access.low(), high = access.high();
  if (read_.overlap(low, high)) enter_reads(low, high);
  if (racing_ || access.pattern->overlaps_itself || flying_.overlap(low, high) || may_race(access)) {
    compare(copy.access, [&copy]() -> Defects& { return copy.found(); });
  }
  flying_.add(low, high);
  return copies_begun_;
}

// From here on it is a write like any other, with what was found of it so far.
void SharedShadow::end_copy(size_t number, uint32_t lanes) {
  const auto found = copies_.find(number);
  if (found == copies_.end()) return;
  Copy& copy = found->second;
  SharedAccess landed = copy.access;
  landed.mask &= lanes;
  landed.time = ++now_;
  if (checks_races_) {
    if (history_.size() >= kHistoryCapacity) forget_history();
    if (copy.defects) {
      Defects& defects = defects_[history_.size()];
      defects = *copy.defects;
      defects.racing &= lanes;
      copy.defects->racing &= ~lanes;
    }
    history_.push_back(landed);
    written_.add(landed.low(), landed.high());
    enter_reads(landed.low(), landed.high());
    enter(landed);
  }
  if (checks_uninitialised_) initialise(landed);
  copy.access.mask &= ~lanes;
  if (copy.access.mask != 0) return;
  copies_.erase(found);
  flying_.clear();
  for (const auto& [other, flying] : copies_) flying_.add(flying.access.low(), flying.access.high());
}

void SharedShadow::Defects::add_race(int lane, const Race& race) {
  Race& known = races[static_cast<size_t>(lane)];
  const auto key = [](const Race& r) { return std::tie(r.address, r.other_thread, r.other_instruction); };
  if (!(racing >> lane & 1) || key(race) < key(known)) known = race;
  racing |= 1u << lane;
}

void SharedShadow::Defects::add_unwritten(int lane, int64_t address) {
  Unwritten& known = unwritten[static_cast<size_t>(lane)];
  if (known.times++ == 0) known.address = address;
  uninitialised |= 1u << lane;
}

// Whether an access was done before just so, at `place`; if not, there is room for it at `place`.
bool SharedShadow::is_repetition(const SharedAccess& access, size_t& place) {
  size_t& latest = latest_[(access.instruction * 64 + static_cast<size_t>(access.warp)) % latest_.size()];
  if (latest < history_.size() && history_[latest].is_repeated_by(access)) {
    ++history_[latest].repeats;
    place = latest;
    return true;
  }
  if (history_.size() >= kHistoryCapacity) forget_history();
  place = latest = history_.size();
  return false;
}

void SharedShadow::forget_history() {
  enter_reads(0, INT64_MAX);
  settle();
  memo_.fill(Memo{});  // it may name retired patterns
}

void SharedShadow::settle() {
  for (const auto& [index, defects] : defects_) report(history_[index], defects);
  defects_.clear();
  history_.clear();
  unentered_.clear();
  racing_ = false;
  // Copies in flight may still refer to them.
  if (copies_.empty()) retired_.clear();
}

void SharedShadow::report(const SharedAccess& access, const Defects& defects) {
  if (defects.racing) {
    const int lane = __builtin_ctz(defects.racing);
    const Race& race = defects.races[static_cast<size_t>(lane)];
    findings_.add(Check::kRace, access.instruction, access.thread(lane),
                  uint64_t{access.repeats + 1} * static_cast<uint64_t>(__builtin_popcount(defects.racing)),
                  static_cast<uint64_t>(race.address), [&] { return describe(access, race); });
  }
  for (uint32_t lanes = defects.uninitialised & ~defects.racing; lanes; lanes &= lanes - 1) {
    const int lane = __builtin_ctz(lanes);
    const Unwritten& unwritten = defects.unwritten[static_cast<size_t>(lane)];
    const uint64_t address = static_cast<uint64_t>(unwritten.address);
    findings_.add(Check::kUninitialised, access.instruction, access.thread(lane),
                  static_cast<uint64_t>(unwritten.times), address,
                  [&] { return "reads shared memory at " + hexadecimal(address) + " that nobody wrote"; });
  }
}

std::string SharedShadow::describe(const SharedAccess& access, const Race& race) const {
  const auto verb = [](uint8_t kind, const char* reads, const char* writes, const char* both) {
    const bool is_write = kind & SharedAccess::kWrites;
    return std::string(!is_write ? reads : kind & SharedAccess::kReads ? both : writes);
  };
  return verb(access.kind, "reads", "writes", "updates") + " shared memory at " +
         hexadecimal(static_cast<uint64_t>(race.address)) + ", which thread " + std::to_string(race.other_thread) +
         " of the block " + verb(race.other_kind, "read", "wrote", "updated") + " in line " +
         std::to_string(program_->info[race.other_instruction].line) + " with no barrier between";
}

void SharedShadow::finish() {
  for (auto& [number, copy] : copies_) {
    if (copy.defects) report(copy.access, *copy.defects);
  }
  copies_.clear();
  settle();
}

void SharedShadow::retire(std::vector<std::unique_ptr<Pattern>> patterns) {
  memo_.fill(Memo{});
  if (checks_races_) retired_.push_back(std::move(patterns));
}

// ---- values ----

void SharedShadow::find_unwritten(const SharedAccess& access, size_t index) {
  Defects alone;
  const auto found = [&]() -> Defects& { return checks_races_ ? defects_[index] : alone; };
  bool all = true;
  for (uint32_t lanes = access.mask; lanes; lanes &= lanes - 1) {
    const int lane = __builtin_ctz(lanes);
    const int64_t address = access.at(lane);
    const int unwritten =
        first_unwritten(&initialised_[static_cast<size_t>(address)], access.pattern->bytes, access.element);
    if (unwritten < 0) continue;
    found().add_unwritten(lane, address + unwritten);
    all = false;
  }
  if (all) return remember_initialised(access);
  if (!checks_races_) report(access, alone);
}

void SharedShadow::remember_initialised(const SharedAccess& access) {
  memo_[memo_index(access.base, access.pattern)] = {access.pattern, access.base};
  const int64_t low = access.low(), high = access.high();
  if (std::memchr(&initialised_[static_cast<size_t>(low)], 0, static_cast<size_t>(high - low))) return;
  if (low <= known_high_ && high >= known_low_ && known_low_ < known_high_) {
    known_low_ = std::min(known_low_, low);
    known_high_ = std::max(known_high_, high);
  } else if (high - low > known_high_ - known_low_) {
    known_low_ = low;
    known_high_ = high;
  }
}

void SharedShadow::initialise(int64_t address, int64_t bytes) {
  if (checks_uninitialised_) std::memset(&initialised_[static_cast<size_t>(address)], 1, static_cast<size_t>(bytes));
}

void SharedShadow::initialise(const SharedAccess& access) {
  const int64_t low = access.low(), high = access.high();
  if (low >= known_low_ && high <= known_high_) return;
  if (access.pattern->shape == Pattern::Shape::kContiguous && access.mask == kAllLanes)
    return initialise(low, high - low);
  for (uint32_t lanes = access.mask; lanes; lanes &= lanes - 1)
    initialise(access.at(__builtin_ctz(lanes)), access.pattern->bytes);
}

// ---- barriers ----

void SharedShadow::block_barrier() {
  settle();
  block_time_ = ++now_;
  read_.clear();
  written_.clear();
}

void SharedShadow::arrive(int warp, Knowledge& knowledge) {
  const Knowledge& own = warps_[static_cast<size_t>(warp)].warps;
  for (size_t other = 0; other < own.size(); ++other) knowledge[other] = std::max(knowledge[other], own[other]);
  knowledge[static_cast<size_t>(warp)] = ++now_;
}

void SharedShadow::learn(int warp, const Knowledge& knowledge) {
  WarpClocks& clocks = warps_[static_cast<size_t>(warp)];
  for (size_t other = 0; other < knowledge.size(); ++other) {
    clocks.warps[other] = std::max(clocks.warps[other], knowledge[other]);
  }
  clocks.whole = ++now_;
}

void SharedShadow::warp_barrier(int warp, uint32_t mask) {
  if (!checks_races_) return;
  ++now_;
  WarpClocks& clocks = warps_[static_cast<size_t>(warp)];
  if (mask == kAllLanes) {
    clocks.whole = now_;
    return;
  }
  if (!clocks.partial) {
    clocks.lanes.fill(0);
    clocks.partial = true;
  }
  std::array<uint32_t, kLanes> joined{};
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1)) continue;
    for (int about = 0; about < kLanes; ++about)
      joined[about] = std::max(joined[about], clocks.lanes[lane * kLanes + about]);
    joined[lane] = now_;
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    if (mask >> lane & 1) std::copy(joined.begin(), joined.end(), &clocks.lanes[lane * kLanes]);
  }
}

}  // namespace flopcuda::ptxvm
