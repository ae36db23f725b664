// bfloat16 operands in pairs of numbers that follow each other in a reduction, each in the place of a float:
// cpu/pairs.h.
#pragma once

#include <ATen/core/Tensor.h>

namespace flopcuda {

// [batch, channels / 2, axes] of [batch, channels, axes].
at::Tensor paired_channels(const at::Tensor& tensor);

// [.., features / 2] of [.., features].
at::Tensor paired_features(const at::Tensor& tensor);

}  // namespace flopcuda
