// Where an output pixel of a convolution reads its input: coordinates that the implicit GEMM and the direct kernel
// share.
#pragma once

#include <cstdint>

#include "cuda/params.h"

namespace flopcuda::cuda {

// An output pixel of an image; pixels of all images, one after the other, are the columns of the im2col matrix.
struct Pixel {
  int64_t image;
  int32_t index;  // in the image's output

  // The pixel so many columns on. Both terms are below 2^30 (the planner sees to it): 32-bit division is enough.
  __device__ Pixel advance(int32_t columns, int32_t output_pixels) const {
    const int32_t from_image_start = index + columns;
    return {image + from_image_start / output_pixels, from_image_start % output_pixels};
  }
};

__device__ inline Pixel locate_column(int64_t column, int32_t output_pixels) {
  return {column / output_pixels, static_cast<int32_t>(column % output_pixels)};
}

// The coordinate of what lies nowhere: the sum with any coordinate, or with itself, is still negative.
constexpr int32_t OUTSIDE = -(1 << 30);

// Whether an input is there, and not padding.
__device__ inline bool is_inside(const AxisParams& axis, int32_t coordinate) {
  return static_cast<uint32_t>(coordinate) < static_cast<uint32_t>(axis.in_size);
}

// Where a tap lies in the kernel, or the first tap of a window in the image. Coordinates are within +-2^30 (the planner
// sees to it).
struct Position {
  int32_t depth;
  int32_t row;
  int32_t column;

  // The window of an output pixel.
  __device__ static Position of_window(const ConvParams& params, const Pixel& pixel) {
    const int32_t rows = pixel.index / params.width.out_size;  // whole rows before the pixel, in all depths
    return {first_input(params.depth, rows / params.height.out_size),
            first_input(params.height, rows % params.height.out_size),
            first_input(params.width, pixel.index % params.width.out_size)};
  }

  // The window of a pixel that the problem does not have: no tap of it is inside.
  __device__ static Position nowhere() { return {OUTSIDE, OUTSIDE, OUTSIDE}; }

  __device__ bool exists() const { return column != OUTSIDE; }

  // Elements from the start of a channel.
  __device__ int64_t offset(const ConvParams& params) const {
    return (static_cast<int64_t>(depth) * params.height.in_size + row) * params.width.in_size + column;
  }

  // Whether a tap of the window reads an input, and not padding.
  __device__ bool has_input_at(const ConvParams& params, const Position& tap) const {
    // No short circuit: comparisons are cheaper than branches.
    return is_inside(params.depth, depth + tap.depth) & is_inside(params.height, row + tap.row) &
           is_inside(params.width, column + tap.column);
  }

 private:
  __device__ static int32_t first_input(const AxisParams& axis, int32_t output) {
    return output * axis.stride - axis.pad;
  }
};

// A step of a reduction: a channel and a tap of the kernel, by its number along each axis.
struct ReductionStep {
  uint32_t channel, depth, row, column;

  // index: of the tap among those of all channels.
  __device__ ReductionStep(const ConvParams& params, uint32_t index) {
    const FastDivisor &width = params.width.kernel_size, &height = params.height.kernel_size;
    const uint32_t rows = width.divide(index);  // whole kernel rows before it, in all channels and depths
    const uint32_t depths = height.divide(rows);
    channel = params.depth.kernel_size.divide(depths);
    depth = depths - channel * params.depth.kernel_size.divisor;
    row = rows - depths * height.divisor;
    column = index - rows * width.divisor;
  }

  // How far it reads from a window's first input, in elements modulo 2^32.
  __device__ uint32_t offset(const ConvParams& params) const {
    const uint32_t row_size = params.width.in_size, depth_size = params.height.in_size * row_size;
    const uint32_t row_step = params.height.dilation * row_size, depth_step = params.depth.dilation * depth_size;
    return channel * static_cast<uint32_t>(params.input_channel_stride) + depth * depth_step + row * row_step +
           column * params.width.dilation;
  }
};

}  // namespace flopcuda::cuda
