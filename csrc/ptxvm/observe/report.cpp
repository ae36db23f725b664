// Counters -> rows. An instruction without a guard was executed by as many lanes as entered its segment.
#include "observe/report.h"

#include <algorithm>

namespace flopcuda::ptxvm {
namespace {

void add_rows(const InstructionInfo& info, const InstructionCounters& counters, uint64_t lanes,
              std::vector<InstructionRow>& rows) {
  uint64_t rest = lanes;
  for (const auto& [space, memory] : {std::pair{Space::kGlobal, counters.global}, {Space::kShared, counters.shared}}) {
    if (memory.requests == 0) continue;
    const uint64_t here = info.space == Space::kGeneric ? std::min(memory.lanes, rest) : info.space == space ? rest : 0;
    rest -= here;
    rows.push_back({&info, space, here, memory});
  }
  if (rest) rows.push_back({&info, info.space, rest, {}});
}

}  // namespace

std::vector<InstructionRow> instruction_rows(const Program& program, const Counters& counters) {
  std::vector<uint64_t> lanes(program.info.size());
  for (size_t i = 0; i < lanes.size(); ++i) lanes[i] = counters.instructions[i].lanes;
  for (const Function& function : program.functions) {
    for (const Segment& segment : function.segments) {
      for (uint32_t i = segment.begin; i < segment.end; ++i) {
        const Instruction& instruction = function.instructions[i];
        if (instruction.guard == kNoRef) lanes[instruction.index] += counters.segment_lanes[segment.count];
      }
    }
  }
  std::vector<InstructionRow> rows;
  for (size_t i = 0; i < lanes.size(); ++i) add_rows(program.info[i], counters.instructions[i], lanes[i], rows);
  return rows;
}

}  // namespace flopcuda::ptxvm
