// shfl, vote, match, redux, elect: exchanges between the lanes of a warp.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "execute/handlers.h"
#include "execute/warp.h"

namespace flopcuda::ptxvm {
namespace {

void set_predicate(Warp& warp, Ref ref, uint32_t lanes, uint32_t value) {
  uint32_t& predicate = warp.predicate(ref);
  predicate = (predicate & ~lanes) | (value & lanes);
}

// Calls visit(lanes) for every set of active lanes that gave one mask; lanes are the active members of it.
template <class Visit>
void for_each_group(Warp& warp, const Instruction& in, Visit visit) {
  const uint32_t* members = warp.row<uint32_t>(in.c);
  for (uint32_t rest = warp.mask; rest;) {
    const uint32_t named = members[__builtin_ctz(rest)];
    uint32_t group = 0;
    for (int lane = 0; lane < kLanes; ++lane) group |= static_cast<uint32_t>(members[lane] == named) << lane;
    group &= rest;
    rest &= ~group;
    visit(group);
  }
}

// The lane that a lane reads, and whether that is within its segment.
bool source_lane(uint8_t mode, int lane, uint32_t b, uint32_t c, int& source) {
  const int offset = static_cast<int>(b & 31), clamp = static_cast<int>(c & 31),
            segment = static_cast<int>(c >> 8 & 31);
  const int highest = (lane & segment) | (clamp & ~segment);
  bool inside;
  switch (mode) {
    case 0:
      source = lane - offset;
      inside = source >= highest;
      break;
    case 1:
      source = lane + offset;
      inside = source <= highest;
      break;
    case 2:
      source = lane ^ offset;
      inside = source <= highest;
      break;
    default:
      source = (lane & segment) | (offset & ~segment & 31);
      inside = source <= highest;
  }
  if (!inside) source = lane;
  return inside;
}

void run_shfl(Warp& warp, const Instruction& in) {
  const uint32_t* b = warp.row<uint32_t>(in.b);
  const uint32_t* c = warp.row<uint32_t>(in.extra->src[0]);
  uint32_t values[kLanes];
  std::memcpy(values, warp.row<uint32_t>(in.a), sizeof values);
  uint32_t* d = warp.row<uint32_t>(in.dst);
  uint32_t inside = 0;
  for (uint32_t rest = warp.mask; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    int source = lane;
    inside |= static_cast<uint32_t>(source_lane(in.u[0], lane, b[lane], c[lane], source)) << lane;
    d[lane] = values[source & 31];
  }
  if (!in.extra->dst.empty()) set_predicate(warp, in.extra->dst[0], warp.mask, inside);
}

void run_vote(Warp& warp, const Instruction& in) {
  const uint32_t predicate = warp.predicate(in.a) ^ (in.u[1] ? kAllLanes : 0);
  for_each_group(warp, in, [&](uint32_t group) {
    const uint32_t set = predicate & group;
    if (in.u[0] == 3) {
      uint32_t* d = warp.row<uint32_t>(in.dst);
      for (int lane = 0; lane < kLanes; ++lane) {
        if (group >> lane & 1) d[lane] = set;
      }
      return;
    }
    const bool result = in.u[0] == 0 ? set == group : in.u[0] == 1 ? set != 0 : set == 0 || set == group;
    set_predicate(warp, in.dst, group, result ? kAllLanes : 0);
  });
}

template <class T>
void run_match(Warp& warp, const Instruction& in) {
  T values[kLanes];
  std::memcpy(values, warp.row<T>(in.a), sizeof values);
  uint32_t* d = warp.row<uint32_t>(in.dst);
  for_each_group(warp, in, [&](uint32_t group) {
    bool all_same = true;
    for (int lane = 0; lane < kLanes; ++lane) {
      if (!(group >> lane & 1)) continue;
      uint32_t same = 0;
      for (int other = 0; other < kLanes; ++other)
        same |= static_cast<uint32_t>(values[other] == values[lane]) << other;
      same &= group;
      all_same &= same == group;
      if (in.u[0] == 0) d[lane] = same;
    }
    if (in.u[0] == 0) return;
    for (int lane = 0; lane < kLanes; ++lane) {
      if (group >> lane & 1) d[lane] = all_same ? group : 0;
    }
    if (!in.extra->dst.empty()) set_predicate(warp, in.extra->dst[0], group, all_same ? kAllLanes : 0);
  });
}

template <class T>
T reduce(uint8_t which, T x, T y) {
  switch (which) {
    case 0:
      return static_cast<T>(static_cast<uint32_t>(x) + static_cast<uint32_t>(y));
    case 1:
      return std::min(x, y);
    case 2:
      return std::max(x, y);
    case 3:
      return x & y;
    case 4:
      return x | y;
    default:
      return x ^ y;
  }
}

template <class T>
void run_redux(Warp& warp, const Instruction& in) {
  T values[kLanes];
  std::memcpy(values, warp.row<T>(in.a), sizeof values);
  T* d = warp.row<T>(in.dst);
  for_each_group(warp, in, [&](uint32_t group) {
    T total = values[__builtin_ctz(group)];
    for (uint32_t rest = group & (group - 1); rest; rest &= rest - 1)
      total = reduce(in.u[0], total, values[__builtin_ctz(rest)]);
    for (uint32_t rest = group; rest; rest &= rest - 1) d[__builtin_ctz(rest)] = total;
  });
}

// Its own inverse: the bits of floats become integers of the same order, -0 below +0.
int32_t ordered(uint32_t bits) { return static_cast<int32_t>(bits ^ (bits >> 31 ? 0x7fffffffu : 0)); }

// The least or greatest number; NaN if there is none or, with .NaN, one is no number.
void run_redux_float(Warp& warp, const Instruction& in) {
  const bool absolute = in.u[1], spread_nan = in.u[2];
  uint32_t values[kLanes];
  std::memcpy(values, warp.row<uint32_t>(in.a), sizeof values);
  uint32_t* d = warp.row<uint32_t>(in.dst);
  for_each_group(warp, in, [&](uint32_t group) {
    uint32_t numbers = 0;
    int32_t total = 0;
    for (uint32_t rest = group; rest; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      if ((values[lane] & 0x7fffffffu) > 0x7f800000u) continue;
      const int32_t value = ordered(absolute ? values[lane] & 0x7fffffffu : values[lane]);
      total = numbers ? reduce(in.u[0], total, value) : value;
      numbers |= 1u << lane;
    }
    const bool nan = spread_nan ? numbers != group : numbers == 0;
    const uint32_t result = nan ? 0x7fffffffu : static_cast<uint32_t>(ordered(static_cast<uint32_t>(total)));
    for (uint32_t rest = group; rest; rest &= rest - 1) d[__builtin_ctz(rest)] = result;
  });
}

void run_elect(Warp& warp, const Instruction& in) {
  uint32_t* d = warp.row<uint32_t>(in.dst);
  for_each_group(warp, in, [&](uint32_t group) {
    const uint32_t leader = static_cast<uint32_t>(__builtin_ctz(group));
    for (uint32_t rest = group; rest; rest &= rest - 1) d[__builtin_ctz(rest)] = leader;
    set_predicate(warp, in.extra->dst[0], group, 1u << leader);
  });
}

}  // namespace

void register_exchange(HandlerTable& table) {
  table.add({Op::kShfl, Type::kU32}, {run_shfl, run_shfl});
  table.add({Op::kVote}, {run_vote, run_vote});
  table.add({Op::kMatch, Type::kU32}, {run_match<uint32_t>, run_match<uint32_t>});
  table.add({Op::kMatch, Type::kU64}, {run_match<uint64_t>, run_match<uint64_t>});
  table.add({Op::kRedux, Type::kU32}, {run_redux<uint32_t>, run_redux<uint32_t>});
  table.add({Op::kRedux, Type::kS32}, {run_redux<int32_t>, run_redux<int32_t>});
  table.add({Op::kRedux, Type::kF32}, {run_redux_float, run_redux_float});
  table.add({Op::kElect}, {run_elect, run_elect});
}

}  // namespace flopcuda::ptxvm
