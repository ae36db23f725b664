// Watches a block's shared memory.
#include "observe/shared_shadow.h"

#include <algorithm>
#include <cstring>

namespace flopcuda::ptxvm {

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

void SharedShadow::reset(int64_t bytes, int warps, bool races, bool uninitialised) {
  races_ = races;
  uninitialised_ = uninitialised;
  read_.clear();
  written_.clear();
  now_ = 1;
  block_time_ = 0;
  log_.clear();
  if (races) words_.assign(static_cast<size_t>(bytes + 3) / 4 + 8, Word{});
  warps_.resize(static_cast<size_t>(warps));
  for (WarpClocks& clocks : warps_) {
    clocks.whole = 0;
    clocks.partial = false;
    clocks.warps.fill(0);
  }
  if (uninitialised) initialised_.assign(static_cast<size_t>(bytes) + 32, 0);
  known_low_ = known_high_ = 0;
  memo_.fill(Memo{});
}

bool SharedShadow::ordered(int thread, int other, uint32_t time) const {
  if (thread == other || time < block_time_) return true;
  const int warp = thread / kLanes, other_warp = other / kLanes;
  const WarpClocks& clocks = warps_[warp];
  if (warp != other_warp) return time < clocks.warps[other_warp];
  if (time < clocks.whole) return true;
  return clocks.partial && time < clocks.lanes[(thread % kLanes) * kLanes + other % kLanes];
}

bool SharedShadow::readers_ordered(int thread, const Word& word) const {
  if (word.read_time < block_time_) return true;
  if (word.reader != kSeveral) return ordered(thread, word.reader, word.read_time);
  const int warp = thread / kLanes;
  for (int other = 0; other < static_cast<int>(warps_.size()); ++other) {
    if (!(word.reader_warps >> other & 1)) continue;
    const WarpClocks& clocks = warps_[warp];
    if (other != warp) {
      if (word.read_time >= clocks.warps[other]) return false;
    } else if (word.read_time >= clocks.whole) {
      if (!clocks.partial) return false;
      // Which lanes read is not known: a barrier with every lane it had one with counts.
      const uint32_t* about = &clocks.lanes[(thread % kLanes) * kLanes];
      uint32_t latest = 0;
      for (int lane = 0; lane < kLanes; ++lane) latest = std::max(latest, about[lane]);
      if (word.read_time >= latest) return false;
    }
  }
  return true;
}

void SharedShadow::enter_lane(int thread, int64_t address, int bytes, uint32_t time, Kind kind, int lane,
                              Conflict* conflict) {
  for (int64_t at = address; at < address + bytes;) {
    Word& word = words_[static_cast<size_t>(at) / 4];
    const int begin = static_cast<int>(at & 3);
    const int end = static_cast<int>(std::min<int64_t>(4, begin + address + bytes - at));
    const uint8_t touched = static_cast<uint8_t>((1 << end) - (1 << begin));
    const bool both_atomic = kind == Kind::kAtomic && word.atomic;
    const bool write_clash = word.writer != kNobody && (word.write_bytes & touched) && !both_atomic &&
                             (word.in_flight || !ordered(thread, word.writer, word.write_time));
    const bool read_clash =
        kind != Kind::kRead && word.reader != kNobody && (word.read_bytes & touched) && !readers_ordered(thread, word);
    if (conflict && conflict->lane < 0 && (write_clash || read_clash)) {
      const int other = write_clash ? word.writer : word.reader == kSeveral ? -1 : word.reader;
      *conflict = {lane, at, other, write_clash};
    }
    if (kind == Kind::kRead) {
      // Readers that this one is ordered after need not be known any more: what is ordered after it is so after them.
      const bool fresh = word.reader == kNobody || readers_ordered(thread, word);
      if (fresh) word.reader_warps = 0, word.read_bytes = 0;
      word.reader = fresh || word.reader == thread ? static_cast<uint16_t>(thread) : kSeveral;
      word.reader_warps |= 1u << (thread / kLanes);
      word.read_time = time;
      word.read_bytes |= touched;
    } else {
      const bool fresh = word.writer != thread || word.write_time < block_time_;
      word.write_bytes = fresh ? touched : static_cast<uint8_t>(word.write_bytes | touched);
      word.writer = static_cast<uint16_t>(thread);
      word.write_time = time;
      word.atomic = kind == Kind::kAtomic;
      word.in_flight = false;
    }
    at += end - begin;
  }
}

SharedShadow::Conflict SharedShadow::enter(int warp, int64_t base, const Pattern& pattern, Kind kind) {
  Conflict conflict;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(pattern.mask >> lane & 1)) continue;
    enter_lane(warp * kLanes + lane, base + pattern.relative[lane], pattern.bytes, now_, kind, lane, &conflict);
  }
  return conflict;
}

void SharedShadow::enter_log(int64_t low, int64_t high) {
  size_t kept = 0;
  for (const LogEntry& entry : log_) {
    const Pattern& pattern = *entry.pattern;
    if (entry.base + pattern.lowest >= high || low >= entry.base + pattern.highest + pattern.bytes) {
      log_[kept++] = entry;
      continue;
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      if (!(pattern.mask >> lane & 1)) continue;
      enter_lane(entry.warp * kLanes + lane, entry.base + pattern.relative[lane], pattern.bytes, entry.time,
                 Kind::kRead, lane, nullptr);
    }
  }
  log_.resize(kept);
}

void SharedShadow::begin_copy(int thread, int64_t address, int bytes) {
  if (!races_) return;
  written_.add(address, address + bytes);
  for (int64_t word = address / 4; word < (address + bytes + 3) / 4; ++word) {
    Word& record = words_[static_cast<size_t>(word)];
    record.writer = static_cast<uint16_t>(thread);
    record.write_time = now_;
    record.write_bytes = 15;
    record.in_flight = true;
    record.atomic = false;
  }
}

SharedShadow::Conflict SharedShadow::end_copy(int thread, int64_t address, int bytes) {
  if (!races_) return {};
  enter_log(address, address + bytes);
  Conflict conflict;
  for (int64_t word = address / 4; word < (address + bytes + 3) / 4; ++word) {
    if (words_[static_cast<size_t>(word)].writer == thread) words_[static_cast<size_t>(word)].in_flight = false;
  }
  written_.add(address, address + bytes);
  enter_lane(thread, address, bytes, now_, Kind::kWrite, thread % kLanes, &conflict);
  return conflict;
}

bool SharedShadow::check_initialised(int64_t base, const Pattern& pattern, int* lane, int64_t* address) {
  for (int l = 0; l < kLanes; ++l) {
    if (!(pattern.mask >> l & 1)) continue;
    const int64_t at = base + pattern.relative[l];
    const void* missing = std::memchr(&initialised_[static_cast<size_t>(at)], 0, static_cast<size_t>(pattern.bytes));
    if (!missing) continue;
    *lane = l;
    *address = static_cast<const uint8_t*>(missing) - initialised_.data();
    return false;
  }
  memo_[memo_index(base, &pattern)] = {&pattern, base};
  const int64_t low = base + pattern.lowest, high = base + pattern.highest + pattern.bytes;
  const bool whole = !std::memchr(&initialised_[static_cast<size_t>(low)], 0, static_cast<size_t>(high - low));
  if (whole) {
    if (low <= known_high_ && high >= known_low_ && known_low_ < known_high_) {
      known_low_ = std::min(known_low_, low);
      known_high_ = std::max(known_high_, high);
    } else if (high - low > known_high_ - known_low_) {
      known_low_ = low;
      known_high_ = high;
    }
  }
  return true;
}

void SharedShadow::initialise(int64_t address, int bytes) {
  if (uninitialised_) std::memset(&initialised_[static_cast<size_t>(address)], 1, static_cast<size_t>(bytes));
}

void SharedShadow::initialise(int64_t base, const Pattern& pattern) {
  if (!uninitialised_) return;
  const int64_t low = base + pattern.lowest, high = base + pattern.highest + pattern.bytes;
  if (low >= known_low_ && high <= known_high_) return;
  if (pattern.shape == Pattern::Shape::kContiguous) return initialise(low, static_cast<int>(high - low));
  for (int lane = 0; lane < kLanes; ++lane) {
    if (pattern.mask >> lane & 1) initialise(base + pattern.relative[lane], pattern.bytes);
  }
}

void SharedShadow::block_barrier() {
  block_time_ = ++now_;
  read_.clear();
  written_.clear();
  log_.clear();
}

// Released threads know all that the arrived ones, whole warps, did before.
void SharedShadow::partial_barrier(const std::vector<uint32_t>& arrived, const std::vector<uint32_t>& released) {
  ++now_;
  std::array<uint32_t, kLanes> joined{};
  for (size_t warp = 0; warp < warps_.size(); ++warp) {
    if (!arrived[warp]) continue;
    for (int other = 0; other < kLanes; ++other) joined[other] = std::max(joined[other], warps_[warp].warps[other]);
    joined[warp] = now_;
  }
  for (size_t warp = 0; warp < warps_.size(); ++warp) {
    if (!released[warp]) continue;
    for (int other = 0; other < kLanes; ++other) {
      warps_[warp].warps[other] = std::max(warps_[warp].warps[other], joined[other]);
    }
    warps_[warp].whole = now_;
  }
}

void SharedShadow::warp_barrier(int warp, uint32_t mask) {
  if (!races_) return;
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
