// Dense copies of transposed matrices: of images whose channels are neighbours where pixels were, or the reverse.
#pragma once

#include <cstdint>
#include <vector>

namespace flopcuda::cpu {

struct StridedAxis {
  int64_t size, stride;  // in elements
};

// Copies a tensor of these axes, outermost first, into a dense one, if it is matrices whose columns are dense where
// rows of the copy are; else does nothing. Returns whether it did.
template <class Scalar>
bool copy_transposed(const Scalar* source, const std::vector<StridedAxis>& axes, Scalar* target);

}  // namespace flopcuda::cpu
