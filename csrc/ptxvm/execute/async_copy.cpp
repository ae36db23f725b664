// cp.async. The data moves only when a wait lets the copy land, so that a kernel which forgets to wait reads old
// values.
#include "execute/async_copy.h"

#include <algorithm>
#include <cstring>

#include "execute/block.h"
#include "execute/handlers.h"
#include "execute/memory.h"

namespace flopcuda::ptxvm {
namespace {

void run_copy(Warp& warp, const Instruction& in) {
  PendingCopy copy{};
  copy.bytes = in.u[0];
  alignas(64) int64_t to[kLanes], from[kLanes];
  register_addresses(warp, in, to);
  const uint64_t* source = warp.row<uint64_t>(in.extra->src[0]);
  const uint32_t* length = in.b == kNoRef ? nullptr : warp.row<uint32_t>(in.b);
  const uint32_t ignored = in.c == kNoRef ? 0 : warp.predicate(in.c) ^ (in.u[1] ? kAllLanes : 0);
  uint32_t reading = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    from[lane] = static_cast<int64_t>(source[lane] + static_cast<uint64_t>(in.extra->values[0]));
    uint32_t bytes =
        length ? std::min(length[lane], static_cast<uint32_t>(copy.bytes)) : static_cast<uint32_t>(copy.bytes);
    if (ignored >> lane & 1) bytes = 0;
    copy.length[lane] = bytes;
    reading |= static_cast<uint32_t>(bytes != 0) << lane;
  }
  const uint32_t active = warp.mask;
  Access access;
  // The source first: both share the instruction's last pattern. A shorter source than the copy is checked in full, as
  // hardware needs its alignment.
  warp.mask = active & reading;
  begin_access_at(warp, in, Space::kGlobal, AccessKind::kRead, from, copy.bytes, access);
  const uint32_t readable = access.mask;
  warp.mask = active;
  begin_access_at(warp, in, Space::kShared, AccessKind::kCopy, to, copy.bytes, access);
  copy.mask = access.mask;
  if (!copy.mask) return;
  for (uint32_t rest = copy.mask; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    if (!(readable >> lane & 1)) copy.length[lane] = 0;
    copy.to[lane] = to[lane];
    copy.from[lane] = static_cast<uint64_t>(from[lane]);
    copy.group[lane] = warp.copy_group[lane];
  }
  copy.number = warp.block->shadow.begin_copy(shared_access(warp, in, access));
  warp.copies.push_back(copy);
}

void land_lane(Warp& warp, const PendingCopy& copy, int lane) {
  char* to = warp.block->shared + copy.to[lane];
  if (copy.length[lane]) std::memcpy(to, reinterpret_cast<const char*>(copy.from[lane]), copy.length[lane]);
  std::memset(to + copy.length[lane], 0, static_cast<size_t>(copy.bytes) - copy.length[lane]);
}

void run_commit(Warp& warp, const Instruction&) {
  for (int lane = 0; lane < kLanes; ++lane) warp.copy_group[lane] += warp.mask >> lane & 1;
}

void run_wait(Warp& warp, const Instruction& in) { land_copies(warp, warp.mask, in.u[0], in.offset); }

}  // namespace

void land_copies(Warp& warp, uint32_t lanes, bool all, int64_t still_pending) {
  for (PendingCopy& copy : warp.copies) {
    uint32_t landing = copy.mask & lanes;
    for (int lane = 0; lane < kLanes; ++lane) {
      if (!(landing >> lane & 1)) continue;
      if (!all && int64_t{copy.group[lane]} + still_pending >= int64_t{warp.copy_group[lane]}) {
        landing &= ~(1u << lane);
        continue;
      }
      land_lane(warp, copy, lane);
    }
    if (landing) warp.block->shadow.end_copy(copy.number, landing);
    copy.mask &= ~landing;
  }
  warp.copies.erase(
      std::remove_if(warp.copies.begin(), warp.copies.end(), [](const PendingCopy& c) { return c.mask == 0; }),
      warp.copies.end());
}

void register_async_copy(HandlerTable& table) {
  table.add({Op::kCpAsync}, {run_copy, run_copy});
  table.add({Op::kCpAsyncCommit}, {run_commit, run_commit});
  table.add({Op::kCpAsyncWait}, {run_wait, run_wait});
}

}  // namespace flopcuda::ptxvm
