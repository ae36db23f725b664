// Counters -> rows, one for each instruction of the text that was executed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "decode/program.h"
#include "observe/counters.h"

namespace flopcuda::ptxvm {

struct InstructionRow {
  const InstructionInfo* info = nullptr;
  uint64_t lanes = 0;
  uint64_t requests = 0;
  uint64_t units = 0;
  uint64_t ideal = 0;
};

std::vector<InstructionRow> instruction_rows(const Program& program, const Counters& counters);

}  // namespace flopcuda::ptxvm
