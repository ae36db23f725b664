// A warp from start to end: its loop, and the control instructions that concern its own lanes only.
#include "execute/warp.h"

#include <algorithm>
#include <new>
#include <utility>

#include "execute/async_copy.h"
#include "execute/block.h"
#include "execute/native.h"
#include "execute/worker.h"

namespace flopcuda::ptxvm {
namespace {

int popcount(uint32_t mask) { return __builtin_popcount(mask); }

bool is_aligned_barrier(const Instruction& instruction) {
  const bool barrier =
      instruction.op == Op::kBarrier || instruction.op == Op::kClusterArrive || instruction.op == Op::kClusterWait;
  return barrier && instruction.u[1];
}

}  // namespace

void Warp::start(Launch& launch_, Block& block_, Worker& worker_, int index_, uint32_t lanes) {
  launch = &launch_;
  block = &block_;
  worker = &worker_;
  index = index_;
  live = lanes;
  executed_ = overtaken_ = undisturbed_until_ = 0;
  patience_ = kPatience;
  forced_ = preempted_ = halted_ = false;
  copies.clear();
  std::fill(std::begin(copy_group), std::end(copy_group), 0u);
  paths_.clear();
  bases[kConstantBase] = const_cast<char*>(reinterpret_cast<const char*>(launch->program.constants.data()));
  bases[kSpecialBase] = block->specials_of(index);
  bases[3] = worker->scratch() + 4;  // kNoRef has the offset -4
  mask = 0;
  frame = nullptr;
  Frame* entry = new_frame(launch->program.functions[0]);
  if (!entry) throw std::bad_alloc();
  paths_.push_back(
      {lanes, launch->program.functions[0].segments.empty() ? kNoSegment : 0, entry, Path::State::kReady, 0});
}

Frame* Warp::new_frame(const Function& function) {
  Frame* made = worker->new_frame(function);
  if (made) made->users = 1;
  return made;
}

void Warp::release_frame(Frame* frame_) {
  while (frame_ && --frame_->users == 0) {
    Frame* caller = frame_->caller;
    worker->free_frame(frame_);
    frame_ = caller;
  }
}

void Warp::stop() {
  for (const Path& path : paths_) release_frame(path.frame);
  paths_.clear();
  live = 0;
}

void Warp::halt() {
  halted_ = true;
  for (const Path& path : paths_) release_frame(path.frame);
  paths_.clear();
}

// ---- the loop ----

void Warp::execute(const Segment& segment) {
  const Instruction* instruction = frame->function->instructions.data() + segment.begin;
  const Instruction* const end = frame->function->instructions.data() + segment.end;
  executed_ += segment.end - segment.begin;
  worker->counters.segment_lanes[segment.count] += static_cast<uint64_t>(popcount(mask));
  if (mask == kAllLanes) {
    for (; instruction != end; ++instruction) instruction->full(*this, *instruction);
  } else {
    for (; instruction != end; ++instruction) instruction->masked(*this, *instruction);
  }
}

Warp::Status Warp::run(int64_t quantum) {
  turn_end_ = executed_ + quantum;
  if (std::exchange(preempted_, false)) {
    take_path(paths_.size() - 1);
    reschedule();
  } else if (!select()) {
    return is_finished() ? Status::kFinished : Status::kBlocked;
  }
  while (true) {
    Outcome outcome;
    if (segment_ == kNoSegment) {
      outcome = frame->caller ? leave_function() : exit_path();
    } else {
      const Segment& segment = frame->function->segments[segment_];
      execute(segment);
      if (segment.control) {
        outcome = control(segment);
      } else {
        segment_ = segment.next;
        outcome = Outcome::kContinue;
      }
    }
    if (outcome == Outcome::kTrapped || block->is_over()) return Status::kStopped;
    if (outcome == Outcome::kLeft) {
      if (!select()) return is_finished() ? Status::kFinished : Status::kBlocked;
    } else if (!paths_.empty()) {
      reschedule();
    }
    if (executed_ >= turn_end_) {
      park(Path::State::kReady, 0);
      preempted_ = true;
      return Status::kPreempted;
    }
  }
}

void Warp::count(const Instruction& instruction, uint32_t lanes) {
  ++executed_;
  worker->counters.instructions[instruction.index].lanes += static_cast<uint64_t>(popcount(lanes));
}

Warp::Outcome Warp::control(const Segment& segment) {
  const Instruction& instruction = *segment.control;
  uint32_t active = mask;
  if (instruction.guard != kNoRef) {
    active &= predicate(instruction.guard) ^ (instruction.guard_negated ? kAllLanes : 0);
  }
  if (instruction.op == Op::kBranch) return branch(segment, active);
  if (active != mask) {
    if (active == 0) {
      ++executed_;
      segment_ = segment.next;
      return Outcome::kContinue;
    }
    split_off(mask & ~active, segment.next);
  }
  if (is_exchange(instruction.op)) return exchange(segment);
  if (instruction.op == Op::kCallIndirect) return call_indirect(segment);
  if (is_aligned_barrier(instruction) && comes_early()) return park(Path::State::kAtExchange, 0), Outcome::kLeft;
  count(instruction, mask);
  switch (instruction.op) {
    case Op::kBranchIndexed:
      return branch_indexed(segment);
    case Op::kExit:
      return exit_path();
    case Op::kReturn:
      return leave_function();
    case Op::kCall: {
      const CallSite& site = frame->function->calls[static_cast<size_t>(instruction.offset)];
      return call(segment, site, launch->program.functions[site.callee]);
    }
    case Op::kBarrier:
      return barrier(segment);
    case Op::kClusterArrive:
    case Op::kClusterWait:
      return cluster_barrier(segment);
    case Op::kTrap:
    case Op::kAssertFail:
      return trap(segment);
    default:  // kYield: let the others run
      segment_ = segment.next;
      overtaken_ -= kPatience;
      undisturbed_until_ = 0;
      turn_end_ = executed_;
      return Outcome::kContinue;
  }
}

// ---- jumps ----

Warp::Outcome Warp::branch(const Segment& segment, uint32_t taken) {
  const Instruction& instruction = *segment.control;
  count(instruction, mask);
  if (instruction.guard != kNoRef) ++worker->counters.branches;
  if (taken == mask || segment.target == segment.next) {
    segment_ = segment.target;
  } else if (taken == 0) {
    segment_ = segment.next;
  } else {
    ++worker->counters.diverged_branches;
    split_off(taken, segment.target);
    segment_ = segment.next;
  }
  return Outcome::kContinue;
}

Warp::Outcome Warp::branch_indexed(const Segment& segment) {
  const uint32_t* index_row = row<uint32_t>(segment.control->a);
  uint32_t target[kLanes] = {};
  uint32_t astray = 0;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    const bool known = index_row[lane] < segment.targets.size();
    if (known) target[lane] = segment.targets[index_row[lane]];
    astray |= static_cast<uint32_t>(!known) << lane;
  }
  if (astray) {
    report(Check::kCall, segment.control->index, astray, index_row[__builtin_ctz(astray)],
           [] { return "brx.idx beyond its list of targets"; });
    return Outcome::kTrapped;
  }
  ++worker->counters.branches;
  segment_ = target[__builtin_ctz(mask)];
  uint32_t elsewhere = 0;
  for (int lane = 0; lane < kLanes; ++lane) elsewhere |= static_cast<uint32_t>(target[lane] != segment_) << lane;
  elsewhere &= mask;
  worker->counters.diverged_branches += elsewhere != 0;
  while (elsewhere) {
    const uint32_t to = target[__builtin_ctz(elsewhere)];
    uint32_t same = 0;
    for (int lane = 0; lane < kLanes; ++lane) same |= static_cast<uint32_t>(target[lane] == to) << lane;
    same &= elsewhere;
    split_off(same, to);
    elsewhere &= ~same;
  }
  return Outcome::kContinue;
}

// ---- the end ----

void Warp::exit_lanes(uint32_t lanes) {
  live &= ~lanes;
  block->lanes_exited();
}

Warp::Outcome Warp::exit_path() {
  if (!copies.empty()) land_copies(*this, mask, true, 0);
  release_frame(frame);
  const uint32_t lanes = mask;
  mask = 0;
  frame = nullptr;
  exit_lanes(lanes);
  return Outcome::kLeft;
}

Warp::Outcome Warp::trap(const Segment& segment) {
  const Instruction& instruction = *segment.control;
  report(Check::kTrap, instruction.index, mask, 0, [&] {
    return instruction.op == Op::kTrap ? "trap" : assertion_message(*this, instruction, __builtin_ctz(mask));
  });
  return Outcome::kTrapped;
}

// ---- messages ----

Warp::Place Warp::place_of(const Path& path) {
  const Function& function = *path.frame->function;
  const Segment& segment = function.segments[path.segment == kNoSegment ? 0 : path.segment];
  const Instruction& instruction = segment.control ? *segment.control : function.instructions[segment.begin];
  return {instruction.index, path.mask};
}

std::vector<Warp::Place> Warp::places() const {
  std::vector<Place> result;
  for (const Path& path : paths_) result.push_back(place_of(path));
  return result;
}

void Warp::report(Check check, uint32_t instruction, uint32_t lanes, uint64_t address,
                  const std::function<std::string()>& describe) {
  if (!lanes) return;
  block->findings.add(check, instruction, index * kLanes + __builtin_ctz(lanes), static_cast<uint64_t>(popcount(lanes)),
                      address, describe);
}

}  // namespace flopcuda::ptxvm
