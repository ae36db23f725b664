// What a launch executed, counted by each worker for itself and added up at the end.
#pragma once

#include <cstdint>
#include <vector>

namespace flopcuda::ptxvm {

struct MemoryCounters {
  uint64_t lanes = 0;
  uint64_t requests = 0;  // warps that issued it
  uint64_t units = 0;     // global: sectors of 32 bytes touched; shared: wavefronts needed
  uint64_t ideal = 0;     // global: sectors that the bytes would fill side by side; shared: without bank conflicts

  MemoryCounters& operator+=(const MemoryCounters& other) {
    lanes += other.lanes;
    requests += other.requests;
    units += other.units;
    ideal += other.ideal;
    return *this;
  }
};

struct InstructionCounters {
  uint64_t lanes = 0;             // lanes that executed it, where the segment's count does not say so
  MemoryCounters global, shared;  // by where its addresses led
};

struct Counters {
  std::vector<uint64_t> segment_lanes;
  std::vector<InstructionCounters> instructions;
  uint64_t branches = 0;           // branch instructions issued by warps
  uint64_t diverged_branches = 0;  // of these, those whose lanes went different ways
  uint64_t barriers = 0;           // completed barriers of blocks
  uint64_t warp_instructions = 0;

  Counters(size_t segments, size_t instructions) : segment_lanes(segments), instructions(instructions) {}

  Counters& operator+=(const Counters& other) {
    for (size_t i = 0; i < segment_lanes.size(); ++i) segment_lanes[i] += other.segment_lanes[i];
    for (size_t i = 0; i < instructions.size(); ++i) {
      instructions[i].lanes += other.instructions[i].lanes;
      instructions[i].global += other.instructions[i].global;
      instructions[i].shared += other.instructions[i].shared;
    }
    branches += other.branches;
    diverged_branches += other.diverged_branches;
    barriers += other.barriers;
    warp_instructions += other.warp_instructions;
    return *this;
  }
};

}  // namespace flopcuda::ptxvm
