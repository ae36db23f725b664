// Where a memory instruction goes: addresses, checks, counters.
#include "execute/memory.h"

#include <algorithm>
#include <cstring>

#include "decode/address_flags.h"
#include "execute/block.h"
#include "execute/worker.h"
#include "observe/text.h"
#include "observe/unwritten.h"

namespace flopcuda::ptxvm {
namespace {

const char* verb(AccessKind kind) {
  return kind == AccessKind::kRead ? "reads" : kind == AccessKind::kWrite ? "writes" : "updates";
}

std::string where_global(const Launch& launch, uint64_t address) {
  const Allocation nearest = launch.memory.nearest(address);
  if (nearest.end == 0) return "no allocation is registered";
  const std::string name = nearest.name.empty() ? "the nearest allocation" : nearest.name;
  const std::string size = " (" + std::to_string(nearest.end - nearest.begin) + " bytes)";
  if (address >= nearest.begin && address < nearest.end) return "at the end of " + name + size;
  const uint64_t distance = address < nearest.begin ? nearest.begin - address : address - nearest.end;
  return std::to_string(distance) + " bytes " + (address < nearest.begin ? "before " : "after ") + name + size;
}

// One warp's access being checked, lane by lane.
class Checker {
 public:
  Checker(Warp& warp, const Instruction& instruction, AccessKind kind, const int64_t* addresses, int bytes, Space space,
          uint64_t window)
      : warp_(warp),
        in_(instruction),
        kind_(kind),
        addresses_(addresses),
        bytes_(static_cast<uint64_t>(bytes)),
        space_(space),
        window_(window) {}

  // Active lanes whose access must not happen; they are reported.
  uint32_t faulty() {
    uint32_t outside = 0, misaligned = 0;
    for (uint32_t rest = warp_.mask; rest; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      if (!in_bounds(lane)) {
        outside |= 1u << lane;
      } else if (address(lane) & (bytes_ - 1)) {
        misaligned |= 1u << lane;
      }
    }
    report(Check::kBounds, outside, [this](int lane) { return access(lane) + why_outside(address(lane)); });
    report(Check::kAlignment, misaligned, [this](int lane) { return access(lane) + ", which is misaligned"; });
    return outside | misaligned;
  }

 private:
  uint64_t address(int lane) const { return static_cast<uint64_t>(addresses_[lane]) - window_; }
  bool writes() const { return kind_ != AccessKind::kRead; }

  template <class Describe>
  void report(Check check, uint32_t lanes, Describe describe) {
    if (!lanes) return;
    const int lowest = __builtin_ctz(lanes);
    warp_.report(check, in_.index, lanes, address(lowest), [&] { return describe(lowest); });
  }

  bool in_bounds(int lane) const {
    const uint64_t begin = address(lane), end = begin + bytes_;
    switch (space_) {
      case Space::kShared:
      case Space::kLocal:
      case Space::kParam:
        return allowed() && begin <= area() && end <= area();
      default:
        const Allocation found = warp_.launch->memory.find(begin, end);
        return found.exists() && (!writes() || found.writable);
    }
  }

  // Parameters are not written to, and atomics do not work on local memory.
  bool allowed() const {
    return space_ == Space::kParam ? !writes() : space_ != Space::kLocal || kind_ != AccessKind::kAtomic;
  }
  uint64_t area() const {
    return space_ == Space::kShared  ? static_cast<uint64_t>(warp_.block->shared_bytes)
           : space_ == Space::kLocal ? static_cast<uint64_t>(warp_.block->stack_bytes)
                                     : warp_.launch->parameters.size();
  }
  std::string area_name() const {
    return space_ == Space::kShared  ? "shared memory"
           : space_ == Space::kLocal ? "local memory"
                                     : "the kernel's parameters";
  }

  std::string access(int lane) const {
    return std::string(verb(kind_)) + " " + std::to_string(bytes_) + " bytes at " + hexadecimal(address(lane));
  }
  std::string why_outside(uint64_t address) const {
    if (space_ != Space::kGlobal && space_ != Space::kGeneric) {
      return " of " + area_name() + (allowed() ? ", which has " + std::to_string(area()) : ", which is not allowed");
    }
    const Allocation found = warp_.launch->memory.find(address, address + bytes_);
    if (!found.exists()) return ", " + where_global(*warp_.launch, address);
    return " in read-only memory" + (found.name.empty() ? "" : " of " + found.name);
  }

  Warp& warp_;
  const Instruction& in_;
  AccessKind kind_;
  const int64_t* addresses_;
  uint64_t bytes_;
  Space space_;
  uint64_t window_;
};

const Pattern* find_pattern(Warp& warp, const Instruction& in, const int64_t* addresses, int bytes) {
  Worker& worker = *warp.worker;
  const Pattern* known = worker.pattern_of[in.index];
  if (known && known->mask == warp.mask && known->bytes == bytes &&
      memory_primitives().match(known, addresses, warp.mask)) {
    return known;
  }
  if (worker.patterns.is_full()) {
    warp.block->shadow.retire(worker.patterns.take());
    std::fill(worker.pattern_of.begin(), worker.pattern_of.end(), nullptr);
  }
  return worker.pattern_of[in.index] = worker.patterns.find(addresses, warp.mask, bytes);
}

// Global and constant memory: within one allocation, in most cases the one that this instruction used last.
bool global_in_bounds(Warp& warp, const Instruction& in, uint64_t low, uint64_t high, bool write) {
  Worker& worker = *warp.worker;
  if (const uint64_t version = warp.launch->memory.version(); worker.allocations_version != version) {
    std::fill(worker.allocation_of.begin(), worker.allocation_of.end(), Worker::Range{});
    worker.allocations_version = version;
  }
  Worker::Range& last = worker.allocation_of[in.index];
  if (low >= last.begin && high <= last.end && low < high && (!write || last.writable)) return true;
  const Allocation found = warp.launch->memory.find(low, high);
  if (!found.exists() || low >= high || (write && !found.writable)) return false;
  last = {found.begin, found.end, found.writable};
  return true;
}

Space space_of_window(uint64_t address) {
  switch (address & kWindowMask) {
    case kSharedWindow:
      return Space::kShared;
    case kLocalWindow:
      return Space::kLocal;
    case kParamWindow:
      return Space::kParam;
    default:
      return Space::kGlobal;
  }
}

uint64_t window_of(Space space) {
  return space == Space::kShared  ? kSharedWindow
         : space == Space::kLocal ? kLocalWindow
         : space == Space::kParam ? kParamWindow
                                  : 0;
}

bool is_in_bounds(Warp& warp, const Instruction& in, Space space, int64_t low, int64_t high, AccessKind kind) {
  const bool write = kind != AccessKind::kRead;
  switch (space) {
    case Space::kShared:
      return low >= 0 && high <= warp.block->shared_bytes;
    case Space::kLocal:
      return low >= 0 && high <= warp.block->stack_bytes && kind != AccessKind::kAtomic;
    case Space::kParam:
      return low >= 0 && high <= static_cast<int64_t>(warp.launch->parameters.size()) && !write;
    default:
      return global_in_bounds(warp, in, static_cast<uint64_t>(low), static_cast<uint64_t>(high), write);
  }
}

void count_wavefronts(Warp& warp, const Instruction& in, const Pattern& pattern) {
  MemoryCounters& counters = warp.worker->counters.instructions[in.index].shared;
  counters.lanes += static_cast<uint64_t>(__builtin_popcount(pattern.mask));
  ++counters.requests;
  counters.units += pattern.wavefronts;
  counters.ideal += pattern.ideal_wavefronts;
}

uint8_t shadow_kind(const Instruction& in, AccessKind kind) {
  const bool atomic = kind == AccessKind::kAtomic;
  const bool replaces = atomic ? static_cast<AtomicOp>(in.u[1]) == AtomicOp::kExchange : kind == AccessKind::kWrite;
  const bool strong = (in.op == Op::kLoad || in.op == Op::kStore) && (in.u[3] & kStrong);
  int result = kind != AccessKind::kWrite ? SharedAccess::kReads : 0;
  if (kind != AccessKind::kRead) result |= SharedAccess::kWrites;
  if (atomic || strong) result |= SharedAccess::kAtomic;
  if (replaces) result |= SharedAccess::kReplaces;
  return static_cast<uint8_t>(result);
}

int element_bytes(const Instruction& in, int bytes) { return in.op == Op::kLoad ? in.u[0] : bytes; }

void observe_shared(Warp& warp, const Instruction& in, const Access& access, AccessKind kind) {
  count_wavefronts(warp, in, *access.pattern);
  if (kind == AccessKind::kCopy) return;
  SharedAccess shared = shared_access(warp, in, access);
  shared.kind = shadow_kind(in, kind);
  shared.element = static_cast<uint8_t>(element_bytes(in, access.pattern->bytes));
  warp.block->shadow.access(shared);
}

void observe_global(Warp& warp, const Instruction& in, int64_t first, const Pattern& pattern) {
  MemoryCounters& counters = warp.worker->counters.instructions[in.index].global;
  counters.lanes += static_cast<uint64_t>(__builtin_popcount(pattern.mask));
  ++counters.requests;
  counters.units += static_cast<uint64_t>(pattern.sectors_at(static_cast<uint64_t>(first)));
  counters.ideal += pattern.ideal_sectors;
}

// Local memory of a lane lies far from its neighbour's.
void place_local(Warp& warp, const Instruction& in, int64_t first, const Pattern& pattern, AccessKind kind,
                 Access& access) {
  int64_t* relative = warp.worker->local_relative;
  char* const start = warp.block->local_of(warp.index, 0);
  for (int lane = 0; lane < kLanes; ++lane) {
    relative[lane] = pattern.mask >> lane & 1 ? lane * warp.block->stack_pitch + pattern.relative[lane] : 0;
  }
  access.host = start + first;
  access.relative = relative;
  access.shape = Pattern::Shape::kScattered;
  if (!warp.block->track_local) return;
  char* const valid = warp.block->local_valid_of(warp.index, 0) + first;
  const int element = element_bytes(in, pattern.bytes);
  uint32_t unwritten = 0;
  for (uint32_t rest = pattern.mask; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    if (kind == AccessKind::kWrite) {
      std::memset(valid + relative[lane], 1, static_cast<size_t>(pattern.bytes));
    } else if (first_unwritten(valid + relative[lane], pattern.bytes, element) >= 0) {
      unwritten |= 1u << lane;
    }
  }
  if (!unwritten) return;
  const int lane = __builtin_ctz(unwritten);
  const uint64_t address = static_cast<uint64_t>(first + pattern.relative[lane] +
                                                 first_unwritten(valid + relative[lane], pattern.bytes, element));
  warp.report(Check::kUninitialised, in.index, unwritten, address,
              [&] { return "reads local memory at " + hexadecimal(address) + " that it did not write"; });
}

void run_for(Warp& warp, const Instruction& in, uint32_t lanes, Handler handler) {
  const uint32_t saved = warp.mask;
  warp.mask = lanes;
  if (lanes) handler(warp, in);
  warp.mask = saved;
}

// What a lane reads that may not: zero.
void clear_results(Warp& warp, const Instruction& in, uint32_t lanes) {
  if (in.op != Op::kLoad && in.op != Op::kAtom) return;
  const int size = in.op == Op::kLoad ? in.u[2] : in.u[0] / (in.extra ? static_cast<int>(in.extra->dst.size()) : 1);
  const auto clear = [&](Ref ref) {
    if (ref == kNoRef) return;
    for (int lane = 0; lane < kLanes; ++lane) {
      if (lanes >> lane & 1) std::memset(warp.at(ref) + lane * size, 0, static_cast<size_t>(size));
    }
  };
  if (!in.extra) return clear(in.dst);
  for (Ref ref : in.extra->dst) clear(ref);
}

void split_by_space(Warp& warp, const Instruction& in, const int64_t* addresses, Handler handler) {
  for (Space space : {Space::kGlobal, Space::kShared, Space::kLocal, Space::kParam}) {
    uint32_t lanes = 0;
    for (int lane = 0; lane < kLanes; ++lane) {
      const bool here = space_of_window(static_cast<uint64_t>(addresses[lane])) == space;
      lanes |= static_cast<uint32_t>((warp.mask >> lane & 1) && here) << lane;
    }
    run_for(warp, in, lanes, handler);
  }
}

enum class Outcome : uint8_t { kGood, kMixed, kFaulty };

// `may_mix`: lanes in different state spaces are no fault but the caller's business.
Outcome check_access(Warp& warp, const Instruction& in, Space space, AccessKind kind, const int64_t* addresses,
                     int bytes, bool may_mix, Access& access, uint32_t* faulty) {
  const Pattern& pattern = *find_pattern(warp, in, addresses, bytes);
  int64_t first = addresses[__builtin_ctz(warp.mask)];
  uint64_t window = 0;
  if (space == Space::kGeneric) {
    space = space_of_window(static_cast<uint64_t>(first));
    const uint64_t low = static_cast<uint64_t>(first) + static_cast<uint64_t>(pattern.lowest);
    const uint64_t high = static_cast<uint64_t>(first) + static_cast<uint64_t>(pattern.highest);
    if (may_mix && (space_of_window(low) != space || space_of_window(high) != space)) {
      for (int lane = 0; lane < kLanes; ++lane) {
        if ((warp.mask >> lane & 1) && space_of_window(static_cast<uint64_t>(addresses[lane])) != space)
          return Outcome::kMixed;
      }
    }
    window = window_of(space);
  } else if (space == Space::kParam) {
    // Addresses of parameters are offsets, or generic after cvta.param.
    window = space_of_window(static_cast<uint64_t>(first)) == Space::kParam ? kParamWindow : 0;
  }
  first = static_cast<int64_t>(static_cast<uint64_t>(first) - window);
  int64_t low, high;
  const bool wraps = __builtin_add_overflow(first, pattern.lowest, &low) ||
                     __builtin_add_overflow(first, pattern.highest, &high) ||
                     __builtin_add_overflow(high, int64_t{bytes}, &high);
  const bool aligned = ((static_cast<uint64_t>(first) | pattern.low_bits) & static_cast<uint64_t>(bytes - 1)) == 0;
  if (wraps || !aligned || !is_in_bounds(warp, in, space, low, high, kind)) {
    *faulty = Checker(warp, in, kind, addresses, bytes, space, window).faulty();
    if (*faulty) return Outcome::kFaulty;
  }
  access.pattern = &pattern;
  access.offset = first;
  access.mask = warp.mask;
  access.relative = pattern.relative;
  access.shape = pattern.shape;
  access.stride = bytes;
  switch (space) {
    case Space::kShared:
      observe_shared(warp, in, access, kind);
      access.host = warp.block->shared + first;
      break;
    case Space::kLocal:
      place_local(warp, in, first, pattern, kind, access);
      break;
    case Space::kParam:
      access.host = const_cast<char*>(reinterpret_cast<const char*>(warp.launch->parameters.data())) + first;
      break;
    default:
      observe_global(warp, in, first, pattern);
      access.host = reinterpret_cast<char*>(first);
  }
  return Outcome::kGood;
}

}  // namespace

MemoryPrimitives& memory_primitives() {
  static MemoryPrimitives instance;
  return instance;
}

const char* shared_begin(const Warp& warp) { return warp.block->shared; }
const char* shared_end(const Warp& warp) { return warp.block->shared + warp.block->shared_bytes; }

void register_addresses(Warp& warp, const Instruction& in, int64_t* out) {
  if (in.u[3] & kWideAddress) {
    memory_primitives().wide_addresses(warp, in, out);
  } else {
    memory_primitives().narrow_addresses(warp, in, out);
  }
  if (in.u[3] & kFrameRelative) {
    const uint64_t base = static_cast<uint64_t>(warp.frame->local_base);
    for (int lane = 0; lane < kLanes; ++lane) out[lane] = static_cast<int64_t>(static_cast<uint64_t>(out[lane]) + base);
  }
}

bool begin_access(Warp& warp, const Instruction& in, Space space, AccessKind kind, Access& access, Handler handler) {
  alignas(64) int64_t addresses[kLanes];
  register_addresses(warp, in, addresses);
  const int bytes = in.op == Op::kAtom ? in.u[0] : in.u[0] * in.u[1];
  uint32_t faulty = 0;
  switch (check_access(warp, in, space, kind, addresses, bytes, true, access, &faulty)) {
    case Outcome::kGood:
      return true;
    case Outcome::kMixed:
      split_by_space(warp, in, addresses, handler);
      return false;
    case Outcome::kFaulty:
      break;
  }
  clear_results(warp, in, faulty);
  run_for(warp, in, warp.mask & ~faulty, handler);
  return false;
}

void begin_access_at(Warp& warp, const Instruction& in, Space space, AccessKind kind, const int64_t* addresses,
                     int bytes, Access& access) {
  const uint32_t saved = warp.mask;
  uint32_t faulty = 0;
  access.mask = 0;
  while (warp.mask && check_access(warp, in, space, kind, addresses, bytes, false, access, &faulty) != Outcome::kGood)
    warp.mask &= ~faulty;
  warp.mask = saved;
}

SharedAccess shared_access(const Warp& warp, const Instruction& in, const Access& access) {
  SharedAccess result;
  result.pattern = access.pattern;
  result.base = access.offset;
  result.instruction = in.index;
  result.mask = access.mask;
  result.warp = static_cast<int16_t>(warp.index);
  return result;
}

const uint8_t* parameter_at(Warp& warp, const Instruction& in, int bytes) {
  alignas(64) int64_t offsets[kLanes];
  std::fill(std::begin(offsets), std::end(offsets), in.offset);
  const uint64_t offset = static_cast<uint64_t>(in.offset), size = warp.launch->parameters.size();
  const uint64_t wanted = static_cast<uint64_t>(bytes);
  if (offset <= size && wanted <= size - offset && (offset & (wanted - 1)) == 0)
    return warp.launch->parameters.data() + offset;
  Checker(warp, in, AccessKind::kRead, offsets, bytes, Space::kParam, 0).faulty();
  return nullptr;
}

}  // namespace flopcuda::ptxvm
