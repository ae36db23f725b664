// Copies slices of the im2col matrix of a convolution without storing that matrix: implicit GEMM.
//
// Bottlenecks it removes: the memory that an explicit im2col writes and reads back, as many times the input as the
// kernel has taps; and integer work. A lane keeps up to four columns, output pixels 32 apart, so that a warp reads
// neighbouring inputs; and a step is the same for all lanes of a warp, so that a channel and tap are found once for
// four columns (taps.cuh). A copy then takes an address and a test of one bit.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/conv_window.cuh"
#include "cuda/gemm_main_loop.cuh"
#include "cuda/params.h"
#include "cuda/split_sums.cuh"
#include "cuda/taps.cuh"
#include "cuda/tiles.h"

namespace flopcuda::cuda {

template <class Tile, TapSource TAPS_>
class Im2colLoader {
  static constexpr int COLUMNS = Tile::BLOCK_N / WARP_SIZE;
  static constexpr int STEPS = Tile::BLOCK_K / Tile::WARPS;

 public:
  using Scalar = typename Tile::Scalar;
  using Slice = OperandSlice<Scalar, Tile::BLOCK_N, Tile::BLOCK_K>;
  using Taps = std::conditional_t<TAPS_ == TapSource::table, TapTable<Tile, COLUMNS>, TapDecoder<Tile, COLUMNS>>;

  // In shared memory, because the main loop, which has all registers busy, needs it once a slice.
  struct Shared {
    typename Taps::Shared taps;
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
        destination_(shared_address(slice.values[first_step()][block_column(0)])),
        steps_left_(part.products - first_step()),
        taps_(params, locate(params, group, first_pixel, columns, shared), part.first + first_step(), shared.taps) {
    // The compiler does not see how the address is found, lest it find it anew for every slice.
    asm("" : "+r"(destination_));
    __syncthreads();
  }

  // Beyond the reduction, zeros.
  template <class Tally>
  __device__ void copy(uint32_t stage_offset, Tally& tally) {
    // All that is read, before the first copy: the compiler takes none of it across one.
    typename Shared::Pair pairs[COLUMNS / 2];
#pragma unroll
    for (int j = 0; j < COLUMNS / 2; ++j) pairs[j] = shared_.pairs[j][lane()];
    Tap taps[STEPS];
#pragma unroll
    for (Tap& tap : taps) tap = taps_.next();
    if (steps_left_ < Tile::BLOCK_K) {
#pragma unroll
      for (int i = 0; i < STEPS; ++i) {
        if (i * Tile::WARPS >= steps_left_) taps[i].marks = Tap::NOTHING;
      }
    }
    steps_left_ -= Tile::BLOCK_K;
#pragma unroll
    for (const Tap& tap : taps) tally.add_padding(tap.marks);
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
#pragma unroll
      for (int j = 0; j < COLUMNS; ++j) {
        copy_async(destination_ + stage_offset + i * (Tile::WARPS * STEP_BYTES) + j * (WARP_SIZE * sizeof(Scalar)),
                   element_at(pairs[j / 2].windows[j % 2], taps[i].offset, params_.scalar_bytes), taps[i].marks,
                   Tap::flag(j));
      }
    }
  }

 private:
  static constexpr int STEP_BYTES = sizeof(Slice) / Tile::BLOCK_K;

  __device__ static int lane() { return threadIdx.x % WARP_SIZE; }
  __device__ static int first_step() { return threadIdx.x / WARP_SIZE; }
  __device__ static int block_column(int j) { return lane() + j * WARP_SIZE; }

  // All warps have the same columns; the first writes where their windows begin.
  __device__ static Windows<COLUMNS> locate(const ConvParams& params, int group, Pixel first_pixel, int columns,
                                            Shared& shared) {
    const Scalar* const channel = static_cast<const Scalar*>(params.input) + group * params.group_input_extent;
    Windows<COLUMNS> windows;
    typename Shared::Pair pairs[COLUMNS / 2];
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) {
      const Pixel pixel = first_pixel.advance(block_column(j), params.output_pixels);
      windows.positions[j] = Position::of_window(params, pixel);
      pairs[j / 2].windows[j % 2] =
          channel + pixel.image * params.input_image_stride + windows.positions[j].offset(params);
      if (block_column(j) >= columns) windows.positions[j] = Position::nowhere();
    }
    if (threadIdx.x < WARP_SIZE) {
#pragma unroll
      for (int j = 0; j < COLUMNS / 2; ++j) shared.pairs[j][lane()] = pairs[j];
    }
    return windows;
  }

  const ConvParams& params_;
  const Shared& shared_;
  uint32_t destination_;
  int steps_left_;  // of the part, from the warp's next on
  Taps taps_;
};

}  // namespace flopcuda::cuda
