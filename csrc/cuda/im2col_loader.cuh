// Loads slices of the im2col matrix of a convolution without storing that matrix: implicit GEMM.
//
// Bottlenecks it removes: the memory that an explicit im2col writes and reads back, kernel_height * kernel_width times the
// input; and integer work. A thread keeps one column, an output pixel, so that its lanes read neighbouring inputs. Which
// channel and tap a step stands for is decoded once per block, by eight threads, one slice ahead, into a table in shared
// memory; a load then costs one 128-bit table read, two bounds checks and an address.
#pragma once

#include <cstdint>

#include "cuda/gemm_main_loop.cuh"
#include "cuda/params.h"
#include "cuda/tiles.h"

namespace flopcuda::cuda {

// A column of the im2col matrix: an output pixel of an image.
struct Pixel {
  int64_t image;
  int32_t index;  // in the image's output plane

  // The pixel so many columns on. 0 <= columns < 2^30, as is the plane's size: 32-bit division is enough.
  __device__ Pixel advance(int32_t columns, int32_t plane) const {
    const uint32_t from_image_start = index + columns;
    return {image + from_image_start / plane, static_cast<int32_t>(from_image_start % plane)};
  }
};

__device__ inline Pixel locate_column(int64_t column, int32_t plane) {
  return {column / plane, static_cast<int32_t>(column % plane)};
}

// Where a step of the reduction reads, relative to the pixel that tap 0 of channel 0 reads.
struct alignas(16) Tap {
  int64_t offset;  // elements
  int32_t row;
  int32_t column;
};

// One 128-bit read; the compiler would make it two.
__device__ inline Tap load_tap(const Tap& tap) {
  const longlong2 bits = *reinterpret_cast<const longlong2*>(&tap);
  return {bits.x, static_cast<int32_t>(bits.y), static_cast<int32_t>(bits.y >> 32)};
}

template <class Tile>
struct Im2colShared {
  static constexpr int THREADS_PER_COLUMN = Tile::THREADS / Tile::BLOCK_N;

  Tap taps[2][Tile::BLOCK_K];
  // Bit k of a column's bytes: the tap of step k lies in the padding. Each thread that loads for a column writes a byte with
  // its own steps; bytes of four neighbouring columns stand together, for one read of the thread that counts them.
  alignas(16) uint8_t padding[2][Tile::BLOCK_N / VECTOR][THREADS_PER_COLUMN][VECTOR];
};

template <class Tile>
class Im2colLoader {
 public:
  using Slice = OperandSlice<Tile::BLOCK_N, Tile::BLOCK_K>;

  // first_pixel: the block's first column. columns: how many the problem has from there on.
  // Ends with a barrier: fetch() reads what other threads decoded.
  __device__ Im2colLoader(const Conv2dParams& params, int group, Pixel first_pixel, int columns, Slice (&slices)[2],
                          Im2colShared<Tile>& shared)
      : params_(params), slices_(slices), shared_(shared), origin_(params.input), row_(OUTSIDE), column_(OUTSIDE) {
    if (block_column() < columns) {
      const Pixel pixel = first_pixel.advance(block_column(), params.output_plane);
      row_ = pixel.index / params.out_width * params.stride_height - params.pad_top;
      column_ = pixel.index % params.out_width * params.stride_width - params.pad_left;
      origin_ += pixel.image * params.input_image_stride +
                 static_cast<int64_t>(group) * params.group_in_channels * params.input_plane +
                 static_cast<int64_t>(row_) * params.in_width + column_;
    }
    decode_taps(0, 0);
    __syncthreads();
  }

  // Between two calls there must be a barrier: taps of the next slice are decoded on the way.
  __device__ void fetch(int first, int stage) {
    padding_ = 0;
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
      const Tap tap = load_tap(shared_.taps[stage][first_step() + i]);
      // No short circuit: two comparisons are cheaper than a branch.
      const bool is_inside = (static_cast<uint32_t>(row_ + tap.row) < static_cast<uint32_t>(params_.in_height)) &
                             (static_cast<uint32_t>(column_ + tap.column) < static_cast<uint32_t>(params_.in_width));
      values_[i] = is_inside ? __ldg(origin_ + tap.offset) : 0.0f;
      padding_ |= is_inside ? 0 : 1u << i;
    }
    decode_taps(first + Tile::BLOCK_K, stage ^ 1);
  }

  __device__ void commit(int stage) {
#pragma unroll
    for (int i = 0; i < STEPS; ++i) slices_[stage].values[first_step() + i][block_column()] = values_[i];
    // A column beyond the problem has no taps, in the padding or elsewhere.
    const uint32_t padding = row_ == OUTSIDE ? 0 : padding_ << first_step();
    shared_.padding[stage][block_column() / VECTOR][thread_of_column()][block_column() % VECTOR] =
        static_cast<uint8_t>(padding);
  }

  // How many taps of the thread's columns lie in the padding at these steps of the slice.
  __device__ int count_padding(int stage, const ThreadPosition<Tile>& position, uint32_t steps) const {
    int count = 0;
#pragma unroll
    for (int j = 0; j < Tile::THREAD_N; j += VECTOR) {
      uint32_t four_columns = 0;
#pragma unroll
      for (int thread = 0; thread < THREADS_PER_COLUMN; ++thread) {
        four_columns |=
            *reinterpret_cast<const uint32_t*>(shared_.padding[stage][position.column(j) / VECTOR][thread]);
      }
      count += __popc(four_columns & in_every_byte(steps));
    }
    return count;
  }

 private:
  static constexpr int THREADS_PER_COLUMN = Im2colShared<Tile>::THREADS_PER_COLUMN;
  static constexpr int STEPS = Tile::BLOCK_K / THREADS_PER_COLUMN;
  // The row and column of what is nowhere. Coordinates lie within +-2^30 (the planner sees to it), so that the sum with any
  // coordinate, or with itself, is still negative.
  static constexpr int OUTSIDE = -(1 << 30);

  __device__ static int block_column() { return threadIdx.x % Tile::BLOCK_N; }
  __device__ static int thread_of_column() { return threadIdx.x / Tile::BLOCK_N; }
  __device__ static int first_step() { return thread_of_column() * STEPS; }

  __device__ void decode_taps(int first, int stage) const {
    if (threadIdx.x < Tile::BLOCK_K) shared_.taps[stage][threadIdx.x] = decode_tap(first + threadIdx.x);
  }

  __device__ Tap decode_tap(int k) const {
    if (k >= params_.reduction) return {0, OUTSIDE, OUTSIDE};
    const int kernel_rows = params_.kernel_width.divide(k);  // whole kernel rows before k, in all channels
    const int channel = params_.kernel_height.divide(kernel_rows);
    const int kernel_row = kernel_rows - channel * params_.kernel_height.divisor;
    const int kernel_column = k - kernel_rows * params_.kernel_width.divisor;
    const int row = kernel_row * params_.dilation_height;
    const int column = kernel_column * params_.dilation_width;
    const int64_t offset =
        channel * params_.input_plane + static_cast<int64_t>(row) * params_.in_width + column;
    return {offset, row, column};
  }

  const Conv2dParams& params_;
  Slice (&slices_)[2];
  Im2colShared<Tile>& shared_;
  const float* origin_;  // what tap 0 of channel 0 reads; outside the tensor if that tap is padding
  int row_;
  int column_;
  float values_[STEPS];
  uint32_t padding_;  // bit i: tap i of the thread's steps lies outside the input
};

}  // namespace flopcuda::cuda
