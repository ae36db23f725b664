// Copies slices of the im2col matrix of a convolution without storing that matrix: implicit GEMM.
//
// Bottlenecks it removes: the memory that an explicit im2col writes and reads back, as many times the input as the
// kernel has taps; and integer work. A lane keeps up to four columns, output pixels 32 apart, so that a warp reads
// neighbouring inputs; and which channel and tap a step stands for is found outside the main loop (taps.cuh). A copy
// then takes an address and a test of one bit.
#pragma once

#include <cstdint>

#include "cuda/async_copy.cuh"
#include "cuda/conv_window.cuh"
#include "cuda/gemm_main_loop.cuh"
#include "cuda/params.h"
#include "cuda/split_sums.cuh"
#include "cuda/taps.cuh"
#include "cuda/tiles.h"

namespace flopcuda::cuda {

template <class Tile>
class Im2colLoader {
  using Steps = StepReader<Tile>;
  static constexpr int COLUMNS = Tile::BLOCK_N / WARP_SIZE;

 public:
  using Scalar = typename Tile::Scalar;
  using Slice = OperandSlice<Scalar, Tile::BLOCK_N, Tile::BLOCK_K>;

  // In shared memory, because the main loop, which has all registers busy, needs it once a slice.
  struct Shared {
    typename Steps::Shared steps;
    // By lane: two windows' first inputs in the group's first channel, padding or not.
    struct alignas(16) Pair {
      const Scalar* windows[2];
    } pairs[COLUMNS / 2][WARP_SIZE];
  };

  // first_pixel: the block's first column. columns: how many the problem has from there on. part: of the reduction.
  // slice: the operand's in the first stage. Ends with a barrier.
  __device__ Im2colLoader(const ConvParams& params, int group, Pixel first_pixel, int columns,
                          const ReductionPart& part, const Slice& slice, Shared& shared)
      : params_(params),
        shared_(shared),
        destination_(shared_address(slice.values[threadIdx.x / WARP_SIZE][block_column(0)])),
        steps_(part, shared.steps) {
    locate(group, first_pixel, columns, shared);
    // The compiler does not see how the address is found, lest it find it anew for every slice.
    asm("" : "+r"(destination_));
    __syncthreads();
  }

  __device__ int prepare(int at_most) { return steps_.prepare(params_, at_most); }

  // Values of the block's columns that lie in the padding, of those whose steps the thread has looked up for its warp.
  __device__ uint32_t padded() const { return steps_.padded(); }

  // Of the slice that copy() began.
  __device__ void finish() const { copies_.finish(); }

  // Beyond the reduction, zeros.
  __device__ void copy(uint32_t stage_offset) {
    // All that is read, before the first copy: the compiler takes none of it across one.
    typename Shared::Pair pairs[COLUMNS / 2];
#pragma unroll
    for (int j = 0; j < COLUMNS / 2; ++j) pairs[j] = shared_.pairs[j][threadIdx.x % WARP_SIZE];
    const typename Steps::Slice steps = steps_.next();
    const uint32_t own = Steps::own_bit();
#pragma unroll
    for (int i = 0; i < Steps::STEPS; ++i) {
#pragma unroll
      for (int j = 0; j < COLUMNS; ++j) {
        copies_.begin(i * COLUMNS + j,
                      destination_ + stage_offset + i * (Tile::WARPS * STEP_BYTES) + j * (WARP_SIZE * sizeof(Scalar)),
                      element_at(pairs[j / 2].windows[j % 2], steps.offsets[i], params_.scalar_bytes),
                      steps.missing[j][i], own);
      }
    }
  }

 private:
  static constexpr int STEP_BYTES = sizeof(Slice) / Tile::BLOCK_K;

  __device__ static int block_column(int j) { return threadIdx.x % WARP_SIZE + j * WARP_SIZE; }

  // All warps have the same columns; the first writes where their windows begin.
  __device__ void locate(int group, const Pixel& first_pixel, int columns, Shared& shared) const {
    const Scalar* const channel = static_cast<const Scalar*>(params_.input) + group * params_.group_input_extent;
    Position windows[COLUMNS];
    typename Shared::Pair pairs[COLUMNS / 2];
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) {
      const Pixel pixel = first_pixel.advance(block_column(j), params_.output_pixels);
      windows[j] = Position::of_window(params_, pixel);
      pairs[j / 2].windows[j % 2] = channel + pixel.image * params_.input_image_stride + windows[j].offset(params_);
      if (block_column(j) >= columns) windows[j] = Position::nowhere();
    }
    if (threadIdx.x < WARP_SIZE) {
#pragma unroll
      for (int j = 0; j < COLUMNS / 2; ++j) shared.pairs[j][threadIdx.x] = pairs[j];
    }
    shared.steps.windows.fill(params_, windows);
  }

  const ConvParams& params_;
  const Shared& shared_;
  uint32_t destination_;
  Steps steps_;
  ScalarCopies<Scalar, Steps::STEPS * COLUMNS> copies_;
};

}  // namespace flopcuda::cuda
