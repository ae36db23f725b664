// Where a memory instruction goes: addresses, checks, counters. What moves the data comes after.
#pragma once

#include <cstddef>
#include <cstdint>

#include "execute/pattern.h"
#include "execute/warp.h"

namespace flopcuda::ptxvm {

// kCopy: a write to shared memory that happens later (cp.async).
enum class AccessKind : uint8_t { kRead, kWrite, kAtomic, kCopy };

// A checked access: lane l is at host + relative[l].
struct Access {
  const Pattern* pattern = nullptr;
  int64_t offset = 0;  // of the pattern in its state space
  char* host = nullptr;
  const int64_t* relative = nullptr;
  uint32_t mask = 0;
  int stride = 0;  // bytes from lane to lane when contiguous
  Pattern::Shape shape = Pattern::Shape::kScattered;
};

// Finds, checks and counts. False when nothing is left to do: some lanes had no good address, or lie in different state
// spaces, and `handler` has been run for the rest.
bool begin_access(Warp& warp, const Instruction& instruction, Space space, AccessKind kind, Access& access,
                  Handler handler);

// The same for addresses that are no register's: the caller gives one for every lane, `bytes` for each. access.mask
// becomes those lanes whose address is good.
void begin_access_at(Warp& warp, const Instruction& instruction, Space space, AccessKind kind, const int64_t* addresses,
                     int bytes, Access& access);

// Address register plus offset, for every lane.
void register_addresses(Warp& warp, const Instruction& instruction, int64_t* out);

// An access to shared memory as its shadow sees it, but for the kind.
SharedAccess shared_access(const Warp& warp, const Instruction& instruction, const Access& access);

// Where the parameters that the instruction names by their offset lie; reports and gives null for a bad place.
const uint8_t* parameter_at(Warp& warp, const Instruction& instruction, int bytes);

// The block's shared memory on the host.
const char* shared_begin(const Warp& warp);
const char* shared_end(const Warp& warp);

// Parts that are compiled for each instruction set.
struct MemoryPrimitives {
  void (*wide_addresses)(Warp&, const Instruction&, int64_t*) = nullptr;
  void (*narrow_addresses)(Warp&, const Instruction&, int64_t*) = nullptr;
  const Pattern* (*match)(const Pattern* known, const int64_t* addresses, uint32_t mask) = nullptr;
};
MemoryPrimitives& memory_primitives();

}  // namespace flopcuda::ptxvm
