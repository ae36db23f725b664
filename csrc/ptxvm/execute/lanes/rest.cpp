// What is left: fences and hints, clocks, address windows, the active mask, and the machine's own functions.
#include <chrono>
#include <cstdint>

#include "execute/handlers.h"
#include "execute/native.h"
#include "execute/warp.h"

namespace flopcuda::ptxvm {
namespace {

void run_nothing(Warp&, const Instruction&) {}

// The parts: 0 cycles (instructions of the warp, here), 1 their upper half, 2 nanoseconds, 3 their upper half.
template <class T>
void run_clock(Warp& warp, const Instruction& in) {
  uint64_t value = static_cast<uint64_t>(warp.executed());
  if (in.u[0] >= 2) {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    value = static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
  }
  if (in.u[0] & 1) value >>= 32;
  T* d = warp.row<T>(in.dst);
  for (uint32_t rest = warp.mask; rest; rest &= rest - 1) d[__builtin_ctz(rest)] = static_cast<T>(value);
}

void run_active_mask(Warp& warp, const Instruction& in) {
  uint32_t* d = warp.row<uint32_t>(in.dst);
  for (uint32_t rest = warp.mask; rest; rest &= rest - 1) d[__builtin_ctz(rest)] = warp.mask;
}

void run_is_space(Warp& warp, const Instruction& in) {
  const uint64_t* a = warp.row<uint64_t>(in.a);
  uint64_t window = 0;
  switch (static_cast<Space>(in.u[0])) {
    case Space::kShared:
      window = kSharedWindow;
      break;
    case Space::kLocal:
      window = kLocalWindow;
      break;
    case Space::kParam:
      window = kParamWindow;
      break;
    default:
      break;
  }
  uint32_t result = 0;
  for (int lane = 0; lane < kLanes; ++lane) result |= static_cast<uint32_t>((a[lane] & kWindowMask) == window) << lane;
  uint32_t& predicate = warp.predicate(in.dst);
  predicate = (predicate & ~warp.mask) | (result & warp.mask);
}

}  // namespace

void register_rest(HandlerTable& table) {
  table.add({Op::kFence}, {run_nothing, run_nothing});
  table.add({Op::kPrefetch}, {run_nothing, run_nothing});
  table.add({Op::kWarpBarrier}, {run_nothing, run_nothing});
  table.add({Op::kReadClock, Type::kU32}, {run_clock<uint32_t>, run_clock<uint32_t>});
  table.add({Op::kReadClock, Type::kU64}, {run_clock<uint64_t>, run_clock<uint64_t>});
  table.add({Op::kActiveMask, Type::kU32}, {run_active_mask, run_active_mask});
  table.add({Op::kIsSpace, Type::kU64}, {run_is_space, run_is_space});
  table.add({Op::kPrintf}, {native_printf, native_printf});
  table.add({Op::kMalloc}, {native_malloc, native_malloc});
  table.add({Op::kFree}, {native_free, native_free});
}

}  // namespace flopcuda::ptxvm
