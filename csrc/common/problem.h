// The shapes of what a kernel computes: plain structs that the host and the device share.
#pragma once

#include <cstdint>

namespace flopcuda {

// A 2-D convolution. Tensors are dense and row-major: input [batch, in_channels, in_height, in_width], weight
// [out_channels, in_channels / groups, kernel_height, kernel_width], bias [out_channels], output [batch, out_channels,
// out_height, out_width]. Padding below and to the right is what the output size implies.
struct Conv2dProblem {
  int64_t batch;
  int64_t in_channels, in_height, in_width;
  int64_t out_channels, out_height, out_width;
  int64_t kernel_height, kernel_width;
  int64_t stride_height, stride_width;
  int64_t pad_top, pad_left;
  int64_t dilation_height, dilation_width;
  int64_t groups;
};

// output[row, o] = bias[o] + sum over i of input[row, i] * weight[o, i]; all dense and row-major.
struct LinearProblem {
  int64_t rows;
  int64_t in_features, out_features;
};

}  // namespace flopcuda
