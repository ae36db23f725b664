// The shapes of what a kernel computes: plain structs that the host and the device share.
#pragma once

#include <cstdint>

namespace flopcuda {

// One axis of a convolution's images. Padding behind the last input is what the output size implies.
struct Axis {
  int64_t in_size, out_size, kernel_size, stride, pad, dilation;
};

// An axis that a convolution of fewer dimensions lacks.
constexpr Axis kFlatAxis{1, 1, 1, 1, 0, 1};

// A convolution of images with three axes; one of two dimensions has a flat depth. Tensors are dense and row-major:
// input [batch, in_channels, depth, height, width], weight [out_channels, in_channels / groups, kernel depth, height,
// width], bias [out_channels], output [batch, out_channels, out depth, height, width].
struct ConvProblem {
  int64_t batch, in_channels, out_channels, groups;
  Axis depth, height, width;
};

// Which part of a product's matrices is known to be zero, and skipped: all that lies above the diagonal, in columns
// greater than the row; of an upper input, below it. Of the output, it is set to 0, whatever its products would be; of
// the input, it must be 0.
enum class Triangle : int64_t { none, output, input, upper_input };

// Of each of a batch: output[row, o] = bias[o] + sum over i of input[row, i] * weight[o, i]; all dense and row-major.
struct LinearProblem {
  int64_t rows;
  int64_t in_features, out_features;
  int64_t batch;
  Triangle triangle;
};

}  // namespace flopcuda
