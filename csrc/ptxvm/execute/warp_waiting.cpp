// Where lanes wait for others: exchanges within the warp, and barriers of the block.
#include <utility>

#include "execute/block.h"
#include "execute/warp.h"

namespace flopcuda::ptxvm {

// ---- exchanges ----

bool Warp::waits_at_warp_barrier(const Path& path) {
  return path.state == Path::State::kAtExchange &&
         path.frame->function->segments[path.segment].control->op == Op::kWarpBarrier;
}

// Lanes that have come to an exchange: those here; lanes of a warp barrier may stand at another one.
uint32_t Warp::present_lanes(const Instruction& instruction) const {
  uint32_t present = mask;
  if (instruction.op != Op::kWarpBarrier) return present;
  for (const Path& path : paths_) present |= waits_at_warp_barrier(path) ? path.mask : 0;
  return present;
}

// Active lanes whose mask names no live lane that has not come.
uint32_t Warp::complete_lanes(const Instruction& instruction) const {
  const uint32_t missing = live & ~present_lanes(instruction);
  if (instruction.c == kNoRef || !is_exchange(instruction.op)) return missing ? 0 : mask;
  const uint32_t* members = row<uint32_t>(instruction.c);
  uint32_t complete = 0;
  for (int lane = 0; lane < kLanes; ++lane) complete |= static_cast<uint32_t>(!(members[lane] & missing)) << lane;
  return complete & mask;
}

// All lanes that active lanes name.
uint32_t Warp::named_lanes(const Instruction& instruction) const {
  if (instruction.c == kNoRef) return kAllLanes;
  const uint32_t* members = row<uint32_t>(instruction.c);
  uint32_t named = 0;
  for (int lane = 0; lane < kLanes; ++lane) named |= mask >> lane & 1 ? members[lane] : 0;
  return named;
}

Warp::Outcome Warp::exchange(const Segment& segment) {
  const Instruction& instruction = *segment.control;
  const bool forced = std::exchange(forced_, false);
  const uint32_t complete = complete_lanes(instruction);
  if (complete == 0) {
    if (!forced) return park(Path::State::kAtExchange, 0), Outcome::kLeft;
    const uint32_t missing = named_lanes(instruction) & live & ~present_lanes(instruction);
    report(Check::kSyncMask, instruction.index, missing, 0,
           [] { return "does not come to an instruction whose mask names it"; });
  } else if (complete != mask) {
    split_off(mask & ~complete, segment_);
  }
  count(instruction, mask);
  check_own_mask(instruction);
  if (instruction.op == Op::kWarpBarrier) {
    release_warp_barriers(instruction);
  } else {
    instruction.full(*this, instruction);
  }
  segment_ = segment.next;
  return Outcome::kContinue;
}

void Warp::check_own_mask(const Instruction& instruction) {
  if (instruction.c == kNoRef) return;
  const uint32_t* members = row<uint32_t>(instruction.c);
  uint32_t outside = 0;
  for (int lane = 0; lane < kLanes; ++lane) outside |= (~members[lane] >> lane & 1u) << lane;
  report(Check::kSyncMask, instruction.index, outside & mask, 0, [] { return "is not named by its own mask"; });
}

void Warp::release_warp_barriers(const Instruction& instruction) {
  const uint32_t named = named_lanes(instruction);
  for (size_t i = 0, end = paths_.size(); i < end; ++i) {
    const Path waiting = paths_[i];
    const uint32_t lanes = waiting.mask & named;
    if (!lanes || !waits_at_warp_barrier(waiting)) continue;
    const Segment& other = waiting.frame->function->segments[waiting.segment];
    count(*other.control, lanes);
    paths_[i] = {lanes, other.next, waiting.frame, Path::State::kReady, 0};
    if (lanes == waiting.mask) continue;
    ++waiting.frame->users;
    paths_.push_back(waiting);
    paths_.back().mask &= ~lanes;
  }
  // Each group of lanes with one mask is ordered among itself.
  const uint32_t* members = row<uint32_t>(instruction.c);
  uint32_t rest = mask;
  while (rest) {
    const uint32_t group = members[__builtin_ctz(rest)] & live;
    block->shadow.warp_barrier(index, group == live ? kAllLanes : group);
    rest &= ~(group | (1u << __builtin_ctz(rest)));
  }
}

// ---- barriers of the block ----

// Why a barrier with these operands can't be, or null.
const char* Warp::barrier_defect(const Instruction& instruction, uint32_t id, int64_t expected) const {
  if (id > 15) return "barrier number over 15";
  if (expected % kLanes != 0) return "thread count of a barrier is not a multiple of the warp size";
  if (expected == 0 && instruction.u[0] == 1) return "arrival at a barrier with a thread count of zero";
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    if (row<uint32_t>(instruction.a)[lane] != id) return "lanes of a warp give different barrier numbers";
    if (instruction.b != kNoRef && row<uint32_t>(instruction.b)[lane] != expected)
      return "lanes of a warp give different thread counts";
  }
  return nullptr;
}

Warp::Outcome Warp::barrier(const Segment& segment) {
  const Instruction& instruction = *segment.control;
  const int lane = __builtin_ctz(mask);
  const uint32_t id = row<uint32_t>(instruction.a)[lane];
  const int64_t expected = instruction.b == kNoRef ? 0 : row<uint32_t>(instruction.b)[lane];
  if (const char* defect = barrier_defect(instruction, id, expected)) {
    report(Check::kBarrier, instruction.index, mask, id, [defect] { return defect; });
    return Outcome::kTrapped;
  }
  check_aligned(instruction);
  if (instruction.u[0] == 1) {
    block->arrive(*this, instruction, id, expected);
    segment_ = segment.next;
    return Outcome::kContinue;
  }
  park(Path::State::kAtBarrier, id);
  block->arrive(*this, instruction, id, expected);
  return Outcome::kLeft;
}

// Lanes at an aligned barrier, which all of a warp execute at once, wait for the others as long as those can run.
bool Warp::comes_early() {
  const bool forced = std::exchange(forced_, false);
  return mask != live && !forced;
}

void Warp::check_aligned(const Instruction& instruction) {
  if (!instruction.u[1]) return;
  report(Check::kBarrier, instruction.index, live & ~mask, 0,
         [] { return "is not at the barrier that other lanes of its warp execute"; });
}

Warp::Outcome Warp::cluster_barrier(const Segment& segment) {
  const Instruction& instruction = *segment.control;
  check_aligned(instruction);
  if (instruction.op == Op::kClusterArrive) {
    block->arrive(*this, instruction, kClusterBarrier, 0);
  } else if (block->barrier(kClusterBarrier).in_use &&
             (block->barrier(kClusterBarrier).arrivals[static_cast<size_t>(index)].lanes & mask)) {
    park(Path::State::kAtBarrier, kClusterBarrier);
    return Outcome::kLeft;
  }
  segment_ = segment.next;
  return Outcome::kContinue;
}

void Warp::release(uint32_t id) {
  const Barrier& barrier = block->barrier(id);
  for (Path& path : paths_) {
    if (path.state != Path::State::kAtBarrier || path.barrier != id) continue;
    const Segment& segment = path.frame->function->segments[path.segment];
    const Instruction& instruction = *segment.control;
    char* saved = bases[kFrameBase];
    bases[kFrameBase] = path.frame->registers;
    if (instruction.u[0] == 2) {
      uint32_t* result = row<uint32_t>(instruction.dst);
      for (int lane = 0; lane < kLanes; ++lane) {
        if (path.mask >> lane & 1) result[lane] = barrier.population;
      }
    } else if (instruction.u[0] > 2) {
      const bool value = instruction.u[0] == 3 ? barrier.all : barrier.any;
      uint32_t& result = predicate(instruction.dst);
      result = value ? result | path.mask : result & ~path.mask;
    }
    bases[kFrameBase] = saved;
    path.state = Path::State::kReady;
    path.segment = segment.next;
  }
}

}  // namespace flopcuda::ptxvm
