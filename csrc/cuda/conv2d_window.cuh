// Where an output pixel of a convolution reads its input: coordinates that the implicit GEMM and the direct kernel
// share.
#pragma once

#include <cstdint>

#include "cuda/params.h"

namespace flopcuda::cuda {

// An output pixel of an image; pixels of all images, one after the other, are the columns of the im2col matrix.
struct Pixel {
  int64_t image;
  int32_t index;  // in the image's output plane

  // The pixel so many columns on. Both terms are below 2^30 (the planner sees to it): 32-bit division is enough.
  __device__ Pixel advance(int32_t columns, int32_t output_plane) const {
    const int32_t from_image_start = index + columns;
    return {image + from_image_start / output_plane, from_image_start % output_plane};
  }
};

__device__ inline Pixel locate_column(int64_t column, int32_t output_plane) {
  return {column / output_plane, static_cast<int32_t>(column % output_plane)};
}

// The row and column of what lies nowhere. Coordinates are within +-2^30 (the planner sees to it), so that the sum with
// any coordinate, or with itself, is still negative.
constexpr int32_t OUTSIDE = -(1 << 30);

// The input that one output pixel reads, in all channels of its group: where the first tap lies.
struct alignas(16) InputWindow {
  const float* origin;  // in the group's first channel; outside the tensor if the first tap lies in the padding
  int32_t row;
  int32_t column;

  __device__ static InputWindow of(const Conv2dParams& params, int group, Pixel pixel) {
    const int32_t row = pixel.index / params.out_width * params.stride_height - params.pad_top;
    const int32_t column = pixel.index % params.out_width * params.stride_width - params.pad_left;
    const int64_t first_channel = static_cast<int64_t>(group) * params.group_in_channels;
    return {params.input + pixel.image * params.input_image_stride + first_channel * params.input_plane +
                static_cast<int64_t>(row) * params.in_width + column,
            row, column};
  }

  // The window of a pixel that the problem does not have: no tap of it is inside.
  __device__ static InputWindow nowhere(const Conv2dParams& params) { return {params.input, OUTSIDE, OUTSIDE}; }

  __device__ bool exists() const { return row != OUTSIDE; }

  // Whether the tap so many rows and columns on reads an input, and not padding.
  __device__ bool has_input_at(const Conv2dParams& params, int32_t tap_row, int32_t tap_column) const {
    // No short circuit: two comparisons are cheaper than a branch.
    return (static_cast<uint32_t>(row + tap_row) < static_cast<uint32_t>(params.in_height)) &
           (static_cast<uint32_t>(column + tap_column) < static_cast<uint32_t>(params.in_width));
  }
};

}  // namespace flopcuda::cuda
