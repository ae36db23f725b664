// Gives the virtual registers of a function slots in its frame, so that the live ones of a warp stay in the cache.
//
// PTX names a register for nearly every value. Registers share a slot when no thread can need both at once; since a
// lane's column of a slot is only ever its own, it is enough to look at one thread's flow. Slots of different widths
// never overlap: their columns would not be the same bytes.
#pragma once

#include <cstdint>
#include <vector>

#include "decode/flow.h"

namespace flopcuda::ptxvm {

struct RegisterSlots {
  std::vector<Ref> slot;  // by virtual register
  int64_t frame_bytes = 0;
  std::vector<RegisterArea> areas;
};

RegisterSlots allocate_registers(const std::vector<Pending>& pending, const std::vector<VirtualRegister>& registers,
                                 const std::vector<BasicBlock>& blocks, const std::vector<uint32_t>& order);

// Calls visit(ref, is_definition) for every register reference of an instruction; visit may change it.
template <class Visit>
void for_each_register(Instruction& instruction, Extra* extra, Visit visit) {
  const auto is_register = [](Ref ref) { return ref != kNoRef && (ref & 3) == kFrameBase; };
  for (Ref* ref : {&instruction.a, &instruction.b, &instruction.c, &instruction.guard}) {
    if (is_register(*ref)) visit(*ref, false);
  }
  if (extra) {
    for (Ref& ref : extra->src)
      if (is_register(ref)) visit(ref, false);
    for (Ref& ref : extra->dst)
      if (is_register(ref)) visit(ref, true);
  }
  if (is_register(instruction.dst)) visit(instruction.dst, true);
}

}  // namespace flopcuda::ptxvm
