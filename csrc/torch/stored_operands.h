// The operands of kernels on tensor cores, as plan.h says that these take them. What lies so already is not copied.
#pragma once

#include <ATen/core/Tensor.h>

#include "common/problem.h"
#include "cuda/plan.h"

namespace flopcuda {

// Dense, with rows as long as a kernel on tensor cores takes them, and at a multiple of 16 bytes.
at::Tensor with_stored_rows(const at::Tensor& tensor, const cuda::KernelInfo& kernel);

// Channels-last, of images [batch, groups, channels of a group, axes].
at::Tensor stored_images(const at::Tensor& images, const ConvProblem& problem, const cuda::Choice& choice);

// Likewise, of a weight [out_channels, channels of a group, axes].
at::Tensor stored_weight(const at::Tensor& weight, const ConvProblem& problem, const cuda::Choice& choice);

}  // namespace flopcuda
