// bfloat16 operands in pairs of numbers that follow each other in a reduction, each in the place of a float:
// cpu/pairs.h. Where the numbers are odd, the last one has a zero behind it.
#pragma once

#include <ATen/core/Tensor.h>

namespace flopcuda {

// [batch, pairs, axes] of [batch, channels, axes]; each group has pairs of its own.
at::Tensor paired_channels(const at::Tensor& tensor, int64_t groups);

// [.., pairs] of [.., features].
at::Tensor paired_features(const at::Tensor& tensor);

}  // namespace flopcuda
