// Operands as the CPU kernels read them.
#pragma once

#include <ATen/core/Tensor.h>

namespace flopcuda {

// Whether a tensor's values lie in the host's memory, here and now: no device's, no transform's, no shape only.
bool has_plain_values(const at::Tensor& tensor);

// A tensor's values one after the other: itself if they are. Images of the other memory format, float or double, are
// copied in less time than by contiguous().
at::Tensor dense(const at::Tensor& tensor);

}  // namespace flopcuda
