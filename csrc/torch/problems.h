// What an operator's arguments are to the kernels: a problem, once all of them have been checked.
//
// What does not fit together is a torch error that begins with the operator's name.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "common/problem.h"

namespace flopcuda {

using OptionalTensor = std::optional<at::Tensor>;

// What the caller says of all axes; padding is before and after each axis, the last axis first.
struct Geometry {
  at::IntArrayRef stride, padding, dilation;
};

// Of images with so many axes: input [batch, channels, axes], weight [out_channels, in_channels / groups, axes].
ConvProblem conv_problem(int64_t axes, const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                         const Geometry& geometry, int64_t groups);

// Input [.., in_features], weight [out_features, in_features].
LinearProblem linear_problem(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias);

// Input [batch, rows, depth], weight [batch, depth, columns]: a linear layer whose weight is the latter, transposed.
LinearProblem matmul_problem(const at::Tensor& input, const at::Tensor& weight,
                             const std::optional<std::string>& triangle, bool count_zero);

}  // namespace flopcuda
