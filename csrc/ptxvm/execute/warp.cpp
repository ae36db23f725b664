// Control flow of a warp: branches, calls, exchanges and barriers, and which of its paths runs next.
#include "execute/warp.h"

#include <algorithm>
#include <cstring>

#include "execute/async_copy.h"
#include "execute/block.h"
#include "execute/native.h"
#include "execute/worker.h"

namespace flopcuda::ptxvm {
namespace {

// So many instructions may a path run while another waits that could run too; then the other gets as many. Lanes that
// spin until a lane of their own warp does something come to an end this way.
constexpr int64_t kPatience = 20'000;

int popcount(uint32_t mask) { return __builtin_popcount(mask); }

bool is_exchange(Op op) { return (op >= Op::kShfl && op <= Op::kWmmaStore) || op == Op::kWarpBarrier; }

}  // namespace

void Warp::start(Launch& launch_, Block& block_, Worker& worker_, int index_, uint32_t lanes) {
  launch = &launch_;
  block = &block_;
  worker = &worker_;
  index = index_;
  live = lanes;
  executed_ = overtaken_ = undisturbed_until_ = 0;
  forced_ = false;
  copies.clear();
  std::fill(std::begin(copy_group), std::end(copy_group), 0u);
  paths_.clear();
  bases[kConstantBase] = const_cast<char*>(reinterpret_cast<const char*>(launch->program.constants.data()));
  bases[kSpecialBase] = block->specials_of(index);
  bases[3] = worker->scratch() + 4;  // kNoRef has the offset -4
  mask = 0;
  frame = nullptr;
  Frame* entry = new_frame(launch->program.functions[0]);
  paths_.push_back(
      {lanes, launch->program.functions[0].segments.empty() ? kNoSegment : 0, entry, Path::State::kReady, 0});
}

Frame* Warp::new_frame(const Function& function) {
  Frame* made = worker->new_frame(function);
  made->users = 1;
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
    if (chosen == paths_.size() || !missing_members(instruction)) chosen = i;
  }
  mask = 0;
  if (chosen == paths_.size()) return false;
  take_path(chosen);
  forced_ = true;
  return true;
}

// Joins paths that stand where the current one does, and goes over to an earlier one if there is any.
void Warp::reschedule() {
  size_t earliest = paths_.size();
  bool others = false;
  for (size_t i = 0; i < paths_.size();) {
    Path& path = paths_[i];
    if (path.state != Path::State::kAtBarrier && path.frame == frame && path.segment == segment_) {
      mask |= path.mask;
      --frame->users;
      paths_.erase(paths_.begin() + static_cast<std::ptrdiff_t>(i));
      continue;
    }
    if (path.state == Path::State::kReady) {
      others = true;
      if (before(path, earliest < paths_.size() ? paths_[earliest] : current())) earliest = i;
    }
    ++i;
  }
  if (!others) {
    overtaken_ = executed_;
    return;
  }
  if (executed_ < undisturbed_until_) return;
  if (executed_ - overtaken_ > kPatience) {
    overtaken_ = executed_ + kPatience;
    undisturbed_until_ = executed_ + kPatience;
    size_t next = 0;
    while (paths_[next].state != Path::State::kReady) ++next;
    const Path mine = current();
    take_path(next);
    paths_.push_back(mine);
  } else if (earliest < paths_.size()) {
    const Path mine = current();
    enter(paths_[earliest]);
    paths_[earliest] = mine;
  }
}

bool Warp::park(Path::State state, uint32_t barrier_) {
  Path path = current();
  path.state = state;
  path.barrier = barrier_;
  paths_.push_back(path);
  return false;
}

// ---- the loop ----

void Warp::execute(const Segment& segment) {
  const Instruction* instruction = frame->function->instructions.data() + segment.begin;
  const Instruction* const end = frame->function->instructions.data() + segment.end;
  executed_ += segment.end - segment.begin + 1;
  worker->counters.segment_lanes[segment.count] += static_cast<uint64_t>(popcount(mask));
  if (mask == kAllLanes) {
    for (; instruction != end; ++instruction) instruction->full(*this, *instruction);
  } else {
    for (; instruction != end; ++instruction) instruction->masked(*this, *instruction);
  }
}

Warp::Status Warp::run(int64_t quantum) {
  const int64_t until = executed_ + quantum;
  if (!select()) return is_finished() ? Status::kFinished : Status::kBlocked;
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
    if (launch->stop.load(std::memory_order_relaxed)) return Status::kStopped;
    if (outcome == Outcome::kLeft) {
      if (!select()) return is_finished() ? Status::kFinished : Status::kBlocked;
    } else if (!paths_.empty()) {
      reschedule();
    }
    if (executed_ >= until) {
      park(Path::State::kReady, 0);
      return Status::kPreempted;
    }
  }
}

void Warp::count(const Instruction& instruction) {
  worker->counters.instructions[instruction.index].lanes += static_cast<uint64_t>(popcount(mask));
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
      segment_ = segment.next;
      return Outcome::kContinue;
    }
    ++frame->users;
    paths_.push_back({mask & ~active, segment.next, frame, Path::State::kReady, 0});
    mask = active;
  }
  if (is_exchange(instruction.op))
    return instruction.op == Op::kWarpBarrier ? warp_barrier(segment) : exchange(segment);
  count(instruction);
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
    case Op::kCallIndirect:
      return call_indirect(segment);
    case Op::kBarrier:
      return barrier(segment);
    case Op::kTrap:
      return trap(segment, false);
    case Op::kAssertFail:
      return trap(segment, true);
    default:  // kYield: let the others run
      segment_ = segment.next;
      overtaken_ -= kPatience;
      executed_ += 100;
      return Outcome::kContinue;
  }
}

// ---- jumps ----

Warp::Outcome Warp::branch(const Segment& segment, uint32_t taken) {
  const Instruction& instruction = *segment.control;
  count(instruction);
  if (instruction.guard != kNoRef) ++worker->counters.branches;
  if (taken == mask) {
    segment_ = segment.target;
  } else if (taken == 0) {
    segment_ = segment.next;
  } else {
    ++worker->counters.diverged_branches;
    ++frame->users;
    paths_.push_back({taken, segment.target, frame, Path::State::kReady, 0});
    mask &= ~taken;
    segment_ = segment.next;
  }
  return Outcome::kContinue;
}

Warp::Outcome Warp::branch_indexed(const Segment& segment) {
  const uint32_t* index_row = row<uint32_t>(segment.control->a);
  ++worker->counters.branches;
  uint32_t rest = mask;
  int ways = 0;
  while (rest) {
    const uint32_t chosen = index_row[__builtin_ctz(rest)];
    uint32_t same = 0;
    for (int lane = 0; lane < kLanes; ++lane) same |= static_cast<uint32_t>(index_row[lane] == chosen) << lane;
    same &= rest;
    rest &= ~same;
    if (chosen >= segment.targets.size()) {
      report(Check::kCall, segment.control->index, __builtin_ctz(same), chosen, "brx.idx beyond its list of targets");
      mask = same;
      return trap(segment, false);
    }
    ++frame->users;
    paths_.push_back({same, segment.targets[chosen], frame, Path::State::kReady, 0});
    ++ways;
  }
  worker->counters.diverged_branches += ways > 1;
  --frame->users;
  mask = 0;
  return Outcome::kLeft;
}

// ---- calls ----

Warp::Outcome Warp::call(const Segment& segment, const CallSite& site, const Function& callee) {
  const int64_t base = (frame->local_base + frame->function->local_bytes + 15) / 16 * 16;
  if (base + callee.local_bytes > block->stack_bytes || frame->depth > 10'000) {
    report(Check::kCall, segment.control->index, __builtin_ctz(mask), 0, "local memory is exhausted by recursion");
    return trap(segment, false);
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1)) continue;
    char* local = block->local_of(index, lane);
    char* valid = block->local_valid_of(index, lane);
    if (block->track_local) std::memset(valid + base, 0, static_cast<size_t>(callee.local_bytes));
    for (size_t i = 0; i < site.arguments.size(); ++i) {
      const int64_t from = frame->local_base + site.argument_from[i], to = base + site.arguments[i].offset;
      std::memcpy(local + to, local + from, static_cast<size_t>(site.arguments[i].size));
      if (block->track_local) std::memcpy(valid + to, valid + from, static_cast<size_t>(site.arguments[i].size));
    }
  }
  Frame* callee_frame = new_frame(callee);
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
  if (same != mask) {
    ++frame->users;
    paths_.push_back({mask & ~same, segment_, frame, Path::State::kReady, 0});
    worker->counters.instructions[instruction.index].lanes -= static_cast<uint64_t>(popcount(mask & ~same));
    mask = same;
  }
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
    report(Check::kCall, instruction.index, __builtin_ctz(mask), pointer,
           callee ? "the function called has other parameters than its prototype"
                  : "call through a pointer to no function");
    return trap(segment, false);
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
  block->lanes_exited(*this);
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

Warp::Outcome Warp::trap(const Segment& segment, bool failed_assertion) {
  const int lane = __builtin_ctz(mask);
  const std::string message = failed_assertion ? assertion_message(*this, *segment.control, lane) : "trap";
  if (failed_assertion || segment.control->op == Op::kTrap)
    report(Check::kTrap, segment.control->index, lane, 0, message);
  launch->stop.store(true);
  return Outcome::kContinue;
}

// ---- exchanges ----

// Members of some active lane's mask that live but are not on this path.
uint32_t Warp::missing_members(const Instruction& instruction) const {
  if (instruction.c == kNoRef) return live & ~mask;
  const uint32_t* members = row<uint32_t>(instruction.c);
  uint32_t named = 0;
  for (int lane = 0; lane < kLanes; ++lane) named |= mask >> lane & 1 ? members[lane] : 0;
  return named & live & ~mask;
}

Warp::Outcome Warp::exchange(const Segment& segment) {
  const Instruction& instruction = *segment.control;
  const bool forced = forced_;
  forced_ = false;
  if (const uint32_t missing = missing_members(instruction)) {
    if (!forced) return park(Path::State::kAtExchange, 0), Outcome::kLeft;
    report(
        Check::kSyncMask, instruction.index, __builtin_ctz(missing), 0,
        "does not come to an instruction whose mask names it (" + std::to_string(popcount(missing)) + " lanes do not)");
  }
  complete_exchange(segment);
  return Outcome::kContinue;
}

void Warp::complete_exchange(const Segment& segment) {
  const Instruction& instruction = *segment.control;
  if (instruction.c != kNoRef) {
    const uint32_t* members = row<uint32_t>(instruction.c);
    uint32_t outside = 0;
    for (int lane = 0; lane < kLanes; ++lane) outside |= (~members[lane] >> lane & 1u) << lane;
    if (outside & mask) {
      report(Check::kSyncMask, instruction.index, __builtin_ctz(outside & mask), 0, "is not named by its own mask");
    }
  }
  count(instruction);
  instruction.full(*this, instruction);
  segment_ = segment.next;
}

// Lanes of a warp barrier may come from different places in the program.
Warp::Outcome Warp::warp_barrier(const Segment& segment) {
  const Instruction& instruction = *segment.control;
  const bool forced = forced_;
  forced_ = false;
  uint32_t missing = missing_members(instruction);
  const auto waits_here = [&](const Path& path) {
    return path.state == Path::State::kAtExchange &&
           path.frame->function->segments[path.segment].control->op == Op::kWarpBarrier;
  };
  for (const Path& path : paths_) missing &= waits_here(path) ? ~path.mask : kAllLanes;
  if (missing && !forced) return park(Path::State::kAtExchange, 0), Outcome::kLeft;
  if (missing) {
    report(
        Check::kSyncMask, instruction.index, __builtin_ctz(missing), 0,
        "does not come to an instruction whose mask names it (" + std::to_string(popcount(missing)) + " lanes do not)");
  }
  const uint32_t* members = row<uint32_t>(instruction.c);
  uint32_t named = 0;
  for (int lane = 0; lane < kLanes; ++lane) named |= mask >> lane & 1 ? members[lane] : 0;
  for (Path& path : paths_) {
    if (!waits_here(path) || !(path.mask & named)) continue;
    const Segment& other = path.frame->function->segments[path.segment];
    worker->counters.instructions[other.control->index].lanes += static_cast<uint64_t>(popcount(path.mask));
    path.state = Path::State::kReady;
    path.segment = other.next;
  }
  count(instruction);
  // Each group of lanes with one mask is ordered among itself.
  uint32_t rest = mask;
  while (rest) {
    const uint32_t group = members[__builtin_ctz(rest)] & live;
    block->shadow.warp_barrier(index, group == live ? kAllLanes : group);
    rest &= ~(group | (1u << __builtin_ctz(rest)));
  }
  segment_ = segment.next;
  return Outcome::kContinue;
}

// ---- barriers of the block ----

Warp::Outcome Warp::barrier(const Segment& segment) {
  const Instruction& instruction = *segment.control;
  const int lane = __builtin_ctz(mask);
  const uint32_t id = row<uint32_t>(instruction.a)[lane];
  const int64_t expected = instruction.b == kNoRef ? 0 : row<uint32_t>(instruction.b)[lane];
  if (id > 15 || expected % kLanes != 0) {
    report(Check::kBarrier, instruction.index, lane, id,
           id > 15 ? "barrier number over 15" : "thread count of a barrier is not a multiple of the warp size");
    launch->stop.store(true);
    return Outcome::kContinue;
  }
  if (instruction.u[1] && mask != live) {
    report(Check::kBarrier, instruction.index, __builtin_ctz(live & ~mask), 0,
           "is not at the barrier that other lanes of its warp execute");
  }
  if (instruction.u[0] == 1) {
    block->arrive(*this, instruction, id, expected);
    segment_ = segment.next;
    return Outcome::kContinue;
  }
  const uint32_t lanes = mask;
  park(Path::State::kAtBarrier, id);
  mask = lanes;
  block->arrive(*this, instruction, id, expected);
  return Outcome::kLeft;
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

uint32_t Warp::waiting_instruction() const {
  for (const Path& path : paths_) {
    if (path.segment == kNoSegment) continue;
    if (const Instruction* control = path.frame->function->segments[path.segment].control) return control->index;
  }
  return 0;
}

uint32_t Warp::waiting_lanes() const {
  uint32_t lanes = 0;
  for (const Path& path : paths_) lanes |= path.mask;
  return lanes;
}

std::array<uint32_t, 3> Warp::thread_of(int lane) const {
  const uint32_t linear = static_cast<uint32_t>(index * kLanes + lane);
  const auto& extent = launch->options.block;
  return {linear % extent[0], linear / extent[0] % extent[1], linear / extent[0] / extent[1]};
}

void Warp::report(Check check, uint32_t instruction, int lane, uint64_t address, const std::string& message) {
  launch->findings.add(check, instruction, [&] {
    Finding finding;
    finding.block = block->coordinates;
    finding.thread = thread_of(lane);
    finding.address = address;
    finding.message = message;
    return finding;
  });
}

}  // namespace flopcuda::ptxvm
