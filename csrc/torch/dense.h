// Operands as the CPU kernels read them.
#pragma once

#include <ATen/core/Tensor.h>

namespace flopcuda {

// A tensor's values, float or double, one after the other: itself if they are. Images of the other memory format are
// copied in less time than by contiguous().
at::Tensor dense(const at::Tensor& tensor);

}  // namespace flopcuda
