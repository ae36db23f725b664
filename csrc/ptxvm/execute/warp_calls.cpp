// Calls, with the arguments and results that go from one frame of local memory to another.
#include <algorithm>
#include <cstring>

#include "execute/block.h"
#include "execute/warp.h"
#include "execute/worker.h"

namespace flopcuda::ptxvm {
namespace {

constexpr int kDeepest = 10'000;  // calls

}  // namespace

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

}  // namespace flopcuda::ptxvm
