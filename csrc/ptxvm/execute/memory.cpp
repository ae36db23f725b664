// Where a memory instruction goes: addresses, checks, counters.
#include "execute/memory.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "decode/address_flags.h"
#include "execute/block.h"
#include "execute/worker.h"

namespace flopcuda::ptxvm {
namespace {

std::string hex(uint64_t value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "0x%llx", static_cast<unsigned long long>(value));
  return buffer;
}

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

// One warp's access being checked.
class Checker {
 public:
  Checker(Warp& warp, const Instruction& instruction, AccessKind kind, const int64_t* addresses, int bytes)
      : warp_(warp), in_(instruction), kind_(kind), addresses_(addresses), bytes_(bytes) {}

  bool write() const { return kind_ != AccessKind::kRead; }

  // Active lanes whose access must not happen.
  uint32_t faulty(Space space, uint64_t window) {
    uint32_t result = 0;
    for (int lane = 0; lane < kLanes; ++lane) {
      if (!(warp_.mask >> lane & 1)) continue;
      const uint64_t address = static_cast<uint64_t>(addresses_[lane]) - window;
      const bool bad = !in_bounds(space, lane, address) || !aligned(lane, address);
      result |= static_cast<uint32_t>(bad) << lane;
    }
    return result;
  }

 private:
  void report(Check check, int lane, uint64_t address, const std::string& message) {
    warp_.report(check, in_.index, lane, address, message);
  }

  bool aligned(int lane, uint64_t address) {
    if ((address & static_cast<uint64_t>(bytes_ - 1)) == 0) return true;
    report(Check::kAlignment, lane, address,
           std::string(verb(kind_)) + " " + std::to_string(bytes_) + " bytes at " + hex(address) +
               ", which is misaligned");
    return false;
  }

  bool in_bounds(Space space, int lane, uint64_t address) {
    const uint64_t bytes = static_cast<uint64_t>(bytes_);
    switch (space) {
      case Space::kShared:
        return in_area(lane, address, static_cast<uint64_t>(warp_.block->shared_bytes), "shared memory");
      case Space::kLocal:
        return in_area(lane, address, static_cast<uint64_t>(warp_.block->stack_bytes), "local memory");
      case Space::kParam:
        if (write()) {
          report(Check::kBounds, lane, address, "writes to a kernel parameter");
          return false;
        }
        return in_area(lane, address, warp_.launch->parameters.size(), "kernel parameters");
      default:
        break;
    }
    const Allocation found = warp_.launch->memory.find(address, address + bytes);
    const std::string what = std::string(verb(kind_)) + " " + std::to_string(bytes_) + " bytes at " + hex(address);
    if (found.end == 0) {
      report(Check::kBounds, lane, address, what + ", " + where_global(*warp_.launch, address));
      return false;
    }
    if (write() && !found.writable) {
      report(Check::kBounds, lane, address,
             what + " in read-only memory" + (found.name.empty() ? "" : " of " + found.name));
      return false;
    }
    return true;
  }

  bool in_area(int lane, uint64_t address, uint64_t size, const char* name) {
    if (address <= size && address + static_cast<uint64_t>(bytes_) <= size) return true;
    report(Check::kBounds, lane, address,
           std::string(verb(kind_)) + " " + std::to_string(bytes_) + " bytes at " + hex(address) + " of " + name +
               ", which has " + std::to_string(size));
    return false;
  }

  Warp& warp_;
  const Instruction& in_;
  AccessKind kind_;
  const int64_t* addresses_;
  int bytes_;
};

const Pattern* find_pattern(Warp& warp, const Instruction& in, const int64_t* addresses, int bytes) {
  Worker& worker = *warp.worker;
  const Pattern* known = worker.pattern_of[in.index];
  if (known && known->mask == warp.mask && known->bytes == bytes &&
      memory_primitives().match(known, addresses, warp.mask)) {
    return known;
  }
  if (worker.patterns.is_full()) {
    warp.block->shadow.forget_patterns();
    worker.patterns.clear();
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

bool is_in_bounds(Warp& warp, const Instruction& in, Space space, int64_t low, int64_t high, bool write) {
  switch (space) {
    case Space::kShared:
      return low >= 0 && high <= warp.block->shared_bytes;
    case Space::kLocal:
      return low >= 0 && high <= warp.block->stack_bytes;
    case Space::kParam:
      return low >= 0 && high <= static_cast<int64_t>(warp.launch->parameters.size()) && !write;
    default:
      return global_in_bounds(warp, in, static_cast<uint64_t>(low), static_cast<uint64_t>(high), write);
  }
}

void observe_shared(Warp& warp, const Instruction& in, int64_t base, const Pattern& pattern, AccessKind kind) {
  MemoryCounters& counters = warp.worker->counters.instructions[in.index].shared;
  counters.lanes += static_cast<uint64_t>(__builtin_popcount(pattern.mask));
  ++counters.requests;
  counters.units += pattern.wavefronts;
  counters.ideal += pattern.ideal_wavefronts;
  if (kind == AccessKind::kCheck) return;
  SharedShadow& shadow = warp.block->shadow;
  const SharedShadow::Kind shadow_kind = kind == AccessKind::kRead    ? SharedShadow::Kind::kRead
                                         : kind == AccessKind::kWrite ? SharedShadow::Kind::kWrite
                                                                      : SharedShadow::Kind::kAtomic;
  const SharedShadow::Conflict conflict = shadow.access(warp.index, base, pattern, shadow_kind);
  if (conflict.lane >= 0) report_race(warp, in, conflict, kind);
  int lane = 0;
  int64_t address = 0;
  if (kind != AccessKind::kWrite && !shadow.is_initialised(base, pattern, &lane, &address)) {
    warp.report(Check::kUninitialised, in.index, lane, static_cast<uint64_t>(address),
                "reads shared memory at " + hex(static_cast<uint64_t>(address)) + " that nobody wrote");
  }
  if (kind != AccessKind::kRead) shadow.initialise(base, pattern);
}

void observe_global(Warp& warp, const Instruction& in, int64_t first, const Pattern& pattern) {
  MemoryCounters& counters = warp.worker->counters.instructions[in.index].global;
  counters.lanes += static_cast<uint64_t>(__builtin_popcount(pattern.mask));
  ++counters.requests;
  counters.units += static_cast<uint64_t>(pattern.sectors_at(static_cast<uint64_t>(first)));
  counters.ideal += pattern.ideal_sectors;
}

// Compilers copy a structure in pieces that take its padding along: what counts is an element of which no byte is
// written.
bool has_unwritten_element(const Instruction& in, const char* valid, int bytes) {
  const int element = in.op == Op::kLoad ? in.u[0] : bytes;
  for (int at = 0; at < bytes; at += element) {
    if (!std::memchr(valid + at, 1, static_cast<size_t>(element))) return true;
  }
  return false;
}

// Local memory of a lane lies far from its neighbour's.
void place_local(Warp& warp, const Instruction& in, int64_t first, const Pattern& pattern, AccessKind kind,
                 Access& access) {
  int64_t* relative = warp.worker->local_relative;
  char* const start = warp.block->local_of(warp.index, 0);
  for (int lane = 0; lane < kLanes; ++lane) {
    relative[lane] = pattern.mask >> lane & 1 ? lane * warp.block->stack_bytes + pattern.relative[lane] : 0;
  }
  access.host = start + first;
  access.relative = relative;
  access.shape = Pattern::Shape::kScattered;
  if (!warp.block->track_local) return;
  char* const valid = warp.block->local_valid_of(warp.index, 0) + first;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(pattern.mask >> lane & 1)) continue;
    if (kind == AccessKind::kWrite) {
      std::memset(valid + relative[lane], 1, static_cast<size_t>(pattern.bytes));
    } else if (has_unwritten_element(in, valid + relative[lane], pattern.bytes)) {
      warp.report(Check::kUninitialised, in.index, lane, static_cast<uint64_t>(first + pattern.relative[lane]),
                  "reads local memory at " + hex(static_cast<uint64_t>(first + pattern.relative[lane])) +
                      " that it did not write");
    }
  }
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
  const int size = in.op == Op::kLoad ? in.u[2] : in.u[0];
  const auto clear = [&](Ref ref) {
    if (ref == kNoRef) return;
    for (int lane = 0; lane < kLanes; ++lane) {
      if (lanes >> lane & 1) std::memset(warp.at(ref) + lane * size, 0, static_cast<size_t>(size));
    }
  };
  if (in.op == Op::kAtom) return clear(in.dst);
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

Outcome check_access(Warp& warp, const Instruction& in, Space space, AccessKind kind, const int64_t* addresses,
                     int bytes, Access& access, uint32_t* faulty) {
  const Pattern& pattern = *find_pattern(warp, in, addresses, bytes);
  int64_t first = addresses[__builtin_ctz(warp.mask)];
  uint64_t window = 0;
  if (space == Space::kGeneric) {
    space = space_of_window(static_cast<uint64_t>(first));
    const uint64_t low = static_cast<uint64_t>(first) + static_cast<uint64_t>(pattern.lowest);
    const uint64_t high = static_cast<uint64_t>(first) + static_cast<uint64_t>(pattern.highest);
    if (space_of_window(low) != space || space_of_window(high) != space) {
      for (int lane = 0; lane < kLanes; ++lane) {
        if ((warp.mask >> lane & 1) && space_of_window(static_cast<uint64_t>(addresses[lane])) != space)
          return Outcome::kMixed;
      }
    }
    window = window_of(space);
  } else if (space == Space::kParam) {
    // Addresses of parameters are offsets, or generic after cvta.param.
    window = static_cast<uint64_t>(first) & kParamWindow;
  }
  first = static_cast<int64_t>(static_cast<uint64_t>(first) - window);
  int64_t low, high;
  const bool wraps = __builtin_add_overflow(first, pattern.lowest, &low) ||
                     __builtin_add_overflow(first, pattern.highest, &high) ||
                     __builtin_add_overflow(high, int64_t{bytes}, &high);
  const bool write = kind != AccessKind::kRead && !(kind == AccessKind::kCheck && space == Space::kGlobal);
  const bool aligned = ((static_cast<uint64_t>(first) | pattern.low_bits) & static_cast<uint64_t>(bytes - 1)) == 0;
  if (wraps || !aligned || !is_in_bounds(warp, in, space, low, high, write)) {
    const AccessKind checked = kind == AccessKind::kCheck ? (write ? AccessKind::kWrite : AccessKind::kRead) : kind;
    *faulty = Checker(warp, in, checked, addresses, bytes).faulty(space, window);
    if (*faulty) return Outcome::kFaulty;
  }
  access.mask = warp.mask;
  access.relative = pattern.relative;
  access.shape = pattern.shape;
  access.stride = bytes;
  switch (space) {
    case Space::kShared:
      observe_shared(warp, in, first, pattern, kind);
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
  switch (check_access(warp, in, space, kind, addresses, bytes, access, &faulty)) {
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

bool begin_access_at(Warp& warp, const Instruction& in, Space space, AccessKind kind, const int64_t* addresses,
                     int bytes, Access& access, uint32_t* faulty) {
  *faulty = 0;
  const Outcome outcome = check_access(warp, in, space, kind, addresses, bytes, access, faulty);
  if (outcome == Outcome::kMixed) *faulty = warp.mask;
  return outcome == Outcome::kGood;
}

void report_race(Warp& warp, const Instruction& in, const SharedShadow::Conflict& conflict, AccessKind kind) {
  const std::string other = conflict.other_thread < 0
                                ? "several other threads"
                                : "thread " + std::to_string(conflict.other_thread) + " of the block";
  warp.report(Check::kRace, in.index, conflict.lane, static_cast<uint64_t>(conflict.address),
              std::string(verb(kind)) + " shared memory at " + hex(static_cast<uint64_t>(conflict.address)) +
                  ", which " + other + (conflict.other_wrote ? " wrote" : " read") + " with no barrier between");
}

const uint8_t* parameter_at(Warp& warp, const Instruction& in, int bytes) {
  alignas(64) int64_t offsets[kLanes];
  std::fill(std::begin(offsets), std::end(offsets), in.offset);
  const uint64_t offset = static_cast<uint64_t>(in.offset), size = warp.launch->parameters.size();
  const uint64_t wanted = static_cast<uint64_t>(bytes);
  if (offset <= size && wanted <= size - offset && (offset & (wanted - 1)) == 0)
    return warp.launch->parameters.data() + offset;
  Checker(warp, in, AccessKind::kRead, offsets, bytes).faulty(Space::kParam, 0);
  return nullptr;
}

}  // namespace flopcuda::ptxvm
