// Counters -> rows, one for each instruction of the text that was executed. One that touched several state spaces has a
// row for each: a generic access with the lanes that went there, cp.async with its lanes at the source only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "decode/program.h"
#include "observe/counters.h"

namespace flopcuda::ptxvm {

struct InstructionRow {
  const InstructionInfo* info = nullptr;
  Space space = Space::kGeneric;
  uint64_t lanes = 0;
  MemoryCounters memory;
};

std::vector<InstructionRow> instruction_rows(const Program& program, const Counters& counters);

}  // namespace flopcuda::ptxvm
