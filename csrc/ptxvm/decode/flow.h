// Control flow of one function: basic blocks, and the order in which a diverged warp executes them.
//
// A warp whose lanes stand at different blocks always runs those at the earliest block of the order, and lanes that
// meet at one block continue together. The order is a weak topological one: an edge leads backwards only to the head
// of a loop, and all blocks of a loop stand together behind its head and before anything that follows the loop. Lanes
// that leave a loop early or take the short side of a branch thus wait at the place where the others will come to,
// also when the flow is irreducible, for which immediate post-dominators give no early meeting point. (Diamos et al.,
// "SIMD re-convergence at thread frontiers", MICRO 2011; Bourdoncle, "Efficient chaotic iteration strategies with
// widenings", 1993.)
#pragma once

#include <cstdint>
#include <vector>

#include "decode/function_decoder.h"

namespace flopcuda::ptxvm {

struct BasicBlock {
  size_t begin = 0, end = 0;  // instructions in the text's order; the last may be the control
  bool ends_in_control = false;
  std::vector<uint32_t> successors;
  uint32_t next = kNoSegment;     // block that follows in the text, when it can be reached from here
  std::vector<uint32_t> targets;  // blocks of the control's targets
};

std::vector<BasicBlock> find_blocks(const std::vector<Pending>& pending);

// The blocks that the first one reaches, in execution order.
std::vector<uint32_t> execution_order(const std::vector<BasicBlock>& blocks);

}  // namespace flopcuda::ptxvm
