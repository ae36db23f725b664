// Control flow of a warp: branches, calls, exchanges and barriers, and which of its paths runs next.
#include "execute/warp.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "execute/async_copy.h"
#include "execute/block.h"
#include "execute/native.h"
#include "execute/worker.h"

namespace flopcuda::ptxvm {
namespace {

// So many instructions may a path run while another waits that could run too; then the other gets as many. Lanes that
// spin until a lane of their own warp does something come to an end this way. Who has spun spins again, as lanes do
// that take a lock in turn: each time the patience is halved, until paths meet.
constexpr int64_t kPatience = 20'000;
constexpr int64_t kLeastPatience = 500;

constexpr int kDeepest = 10'000;  // calls

int popcount(uint32_t mask) { return __builtin_popcount(mask); }

// Whether two frames are of one call, which lanes came to at different times.
bool is_same_call(const Frame* x, const Frame* y) {
  if (x->depth != y->depth) return false;
  for (; x != y; x = x->caller, y = y->caller) {
    if (x->function != y->function || x->site != y->site) return false;
  }
  return true;
}

void copy_registers(const Frame& from, Frame& to, uint32_t lanes) {
  for (const RegisterArea& area : from.function->areas) {
    const int64_t stride = area.size == 0 ? int64_t{sizeof(uint32_t)} : int64_t{kLanes} * area.size;
    for (int64_t row = area.begin; row < area.end; row += stride) {
      if (area.size == 0) {
        const uint32_t source = *reinterpret_cast<const uint32_t*>(from.registers + row);
        uint32_t& target = *reinterpret_cast<uint32_t*>(to.registers + row);
        target = (target & ~lanes) | (source & lanes);
        continue;
      }
      for (uint32_t rest = lanes; rest; rest &= rest - 1) {
        const int64_t column = row + int64_t{__builtin_ctz(rest)} * area.size;
        std::memcpy(to.registers + column, from.registers + column, static_cast<size_t>(area.size));
      }
    }
  }
}

bool is_aligned_barrier(const Instruction& instruction) {
  const bool barrier =
      instruction.op == Op::kBarrier || instruction.op == Op::kClusterArrive || instruction.op == Op::kClusterWait;
  return barrier && instruction.u[1];
}

bool is_exchange(Op op) { return (op >= Op::kShfl && op <= Op::kWmmaStore) || op == Op::kWarpBarrier; }

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

// ---- paths ----

void Warp::enter(const Path& path) {
  mask = path.mask;
  segment_ = path.segment;
  frame = path.frame;
  bases[kFrameBase] = frame->registers;
}

bool Warp::before(const Path& x, const Path& y) {
  if (x.frame->depth != y.frame->depth) return x.frame->depth > y.frame->depth;
  return x.segment < y.segment;
}

bool Warp::has_ready_path() const {
  return std::any_of(paths_.begin(), paths_.end(), [](const Path& p) { return p.state != Path::State::kAtBarrier; });
}

void Warp::take_path(size_t which) {
  const Path path = paths_[which];
  paths_.erase(paths_.begin() + static_cast<std::ptrdiff_t>(which));
  enter(path);
}

// Makes the earliest path that can run the current one; false when all wait for the block.
bool Warp::select() {
  size_t best = paths_.size();
  for (size_t i = 0; i < paths_.size(); ++i) {
    if (paths_[i].state != Path::State::kReady) continue;
    if (best == paths_.size() || before(paths_[i], paths_[best])) best = i;
  }
  if (best == paths_.size()) return resolve_exchanges();
  take_path(best);
  reschedule();
  return true;
}

// Nobody can run but lanes that wait at an exchange: those they wait for have exited, or will not come.
bool Warp::resolve_exchanges() {
  size_t chosen = paths_.size();
  for (size_t i = 0; i < paths_.size(); ++i) {
    if (paths_[i].state != Path::State::kAtExchange) continue;
    enter(paths_[i]);
    const Instruction& instruction = *frame->function->segments[segment_].control;
    if (chosen == paths_.size() || complete_lanes(instruction)) chosen = i;
  }
  mask = 0;
  if (chosen == paths_.size()) return false;
  take_path(chosen);
  forced_ = true;
  return true;
}

// Paths that stand where the current one does become part of it.
void Warp::join() {
  for (size_t i = 0; i < paths_.size();) {
    const Path path = paths_[i];
    if (path.state == Path::State::kAtBarrier || path.segment != segment_ || !is_same_call(path.frame, frame)) {
      ++i;
      continue;
    }
    mask |= path.mask;
    patience_ = kPatience;
    for (Frame *from = path.frame, *to = frame; from != to; from = from->caller, to = to->caller)
      copy_registers(*from, *to, path.mask);
    release_frame(path.frame);
    paths_.erase(paths_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

void Warp::change_over(size_t which) {
  const Path mine = current();
  take_path(which);
  paths_.push_back(mine);
  join();
}

// Goes over to an earlier path if there is any.
void Warp::reschedule() {
  join();
  size_t earliest = paths_.size(), any = paths_.size();
  for (size_t i = 0; i < paths_.size(); ++i) {
    if (paths_[i].state != Path::State::kReady) continue;
    if (any == paths_.size()) any = i;
    if (before(paths_[i], earliest < paths_.size() ? paths_[earliest] : current())) earliest = i;
  }
  if (any == paths_.size()) {
    overtaken_ = executed_;
    return;
  }
  if (executed_ < undisturbed_until_) return;
  if (executed_ - overtaken_ > patience_) {
    overtaken_ = undisturbed_until_ = executed_ + patience_;
    patience_ = std::max(patience_ / 2, kLeastPatience);
    change_over(any);
  } else if (earliest < paths_.size()) {
    change_over(earliest);
  }
}

void Warp::park(Path::State state, uint32_t barrier_) {
  Path path = current();
  path.state = state;
  path.barrier = barrier_;
  paths_.push_back(path);
}

// Splits lanes off the current path; they stay, or go to another segment.
void Warp::split_off(uint32_t lanes, uint32_t segment) {
  ++frame->users;
  paths_.push_back({lanes, segment, frame, Path::State::kReady, 0});
  mask &= ~lanes;
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

// ---- calls ----

Warp::Outcome Warp::call(const Segment& segment, const CallSite& site, const Function& callee) {
  const int64_t base = (frame->local_base + frame->function->local_bytes + 15) / 16 * 16;
  const bool fits = base + callee.local_bytes <= block->stack_bytes && frame->depth < kDeepest;
  Frame* callee_frame = fits ? new_frame(callee) : nullptr;
  if (!callee_frame) {
    report(Check::kCall, segment.control->index, mask, 0, [] { return "the stack is exhausted by recursion"; });
    return Outcome::kTrapped;
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1)) continue;
    block->open_frame(index, lane, base, callee.local_bytes);
    char* local = block->local_of(index, lane);
    char* valid = block->local_valid_of(index, lane);
    for (size_t i = 0; i < site.arguments.size(); ++i) {
      const int64_t from = frame->local_base + site.argument_from[i], to = base + site.arguments[i].offset;
      std::memcpy(local + to, local + from, static_cast<size_t>(site.arguments[i].size));
      if (block->track_local) std::memcpy(valid + to, valid + from, static_cast<size_t>(site.arguments[i].size));
    }
  }
  callee_frame->local_base = base;
  callee_frame->depth = frame->depth + 1;
  callee_frame->caller = frame;
  callee_frame->return_to = segment.next;
  callee_frame->site = &site;
  enter({mask, callee.segments.empty() ? kNoSegment : 0, callee_frame, Path::State::kReady, 0});
  return Outcome::kContinue;
}

Warp::Outcome Warp::call_indirect(const Segment& segment) {
  const Instruction& instruction = *segment.control;
  const CallSite& site = frame->function->calls[static_cast<size_t>(instruction.offset)];
  const uint64_t pointer = row<uint64_t>(instruction.a)[__builtin_ctz(mask)];
  uint32_t same = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    same |= static_cast<uint32_t>((mask >> lane & 1) && row<uint64_t>(instruction.a)[lane] == pointer) << lane;
  }
  // The other lanes come again; this segment has nothing in front of the call.
  if (same != mask) split_off(mask & ~same, segment_);
  count(instruction, mask);
  const uint64_t module_index = (pointer - kFunctionWindow) / 16;
  const std::vector<int64_t>& known = launch->program.function_of_module_index;
  const bool valid = (pointer & kWindowMask) == kFunctionWindow && pointer % 16 == 0 && module_index < known.size() &&
                     known[module_index] > 0;
  const Function* callee = valid ? &launch->program.functions[static_cast<size_t>(known[module_index])] : nullptr;
  const auto same_layout = [](const std::vector<ParameterSlot>& x, const std::vector<ParameterSlot>& y) {
    return std::equal(x.begin(), x.end(), y.begin(), y.end(), [](const ParameterSlot& p, const ParameterSlot& q) {
      return p.offset == q.offset && p.size == q.size;
    });
  };
  if (!callee || !same_layout(callee->parameters, site.arguments) || !same_layout(callee->returns, site.returns)) {
    report(Check::kCall, instruction.index, mask, pointer, [callee] {
      return callee ? "the function called has other parameters than its prototype"
                    : "call through a pointer to no function";
    });
    return Outcome::kTrapped;
  }
  return call(segment, site, *callee);
}

Warp::Outcome Warp::leave_function() {
  Frame* callee = frame;
  Frame* caller = callee->caller;
  if (!caller) return exit_path();
  const CallSite& site = *callee->site;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1)) continue;
    char* local = block->local_of(index, lane);
    char* valid = block->local_valid_of(index, lane);
    for (size_t i = 0; i < site.return_to.size(); ++i) {
      const int64_t from = callee->local_base + site.returns[i].offset, to = caller->local_base + site.return_to[i];
      std::memcpy(local + to, local + from, static_cast<size_t>(site.returns[i].size));
      if (block->track_local) std::memcpy(valid + to, valid + from, static_cast<size_t>(site.returns[i].size));
    }
  }
  ++caller->users;
  enter({mask, callee->return_to, caller, Path::State::kReady, 0});
  release_frame(callee);
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
