// Counters -> rows. An instruction without a guard was executed by as many lanes as entered its segment.
#include "observe/report.h"

namespace flopcuda::ptxvm {

std::vector<InstructionRow> instruction_rows(const Program& program, const Counters& counters) {
  std::vector<InstructionRow> all(program.info.size());
  for (size_t i = 0; i < all.size(); ++i) {
    const InstructionCounters& own = counters.instructions[i];
    all[i] = {&program.info[i], own.lanes, own.requests, own.units, own.ideal};
  }
  for (const Function& function : program.functions) {
    for (const Segment& segment : function.segments) {
      for (uint32_t i = segment.begin; i < segment.end; ++i) {
        const Instruction& instruction = function.instructions[i];
        if (instruction.guard == kNoRef) all[instruction.index].lanes += counters.segment_lanes[segment.count];
      }
    }
  }
  std::vector<InstructionRow> executed;
  for (const InstructionRow& row : all) {
    if (row.lanes) executed.push_back(row);
  }
  return executed;
}

}  // namespace flopcuda::ptxvm
