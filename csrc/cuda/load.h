// What the blocks of a launch multiply: all the same, but for a triangle's.
#pragma once

#include <cstdint>

#include "cuda/gemm_shape.h"
#include "cuda/plan.h"

namespace flopcuda::cuda {

// Of the blocks that multiply: those beyond a triangle's diagonal, and those whose part of a short row's reduction is
// empty, are not among them. What a block does outside its main loop is as many slices as its kernel says.
struct Load {
  int64_t blocks;
  double slices;    // of all of them
  int64_t longest;  // slices of one of them, at most
};

Load load_of(const KernelInfo& kernel, const GemmShape& shape, int32_t splits);

}  // namespace flopcuda::cuda
