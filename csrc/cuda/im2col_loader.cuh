// Copies slices of the im2col matrix of a convolution without storing that matrix: implicit GEMM.
//
// Bottlenecks it removes: the memory that an explicit im2col writes and reads back, as many times the input as the
// kernel has taps; and integer work. A lane keeps up to four columns, output pixels 32 apart, so that a warp reads
// neighbouring inputs; and a step is the same for all lanes of a warp, so that a channel and tap are found once for
// four columns (taps.cuh). A copy then takes an address and a test of one bit.
#pragma once

#include <cstdint>
#include <cstring>
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
    // By lane: elements from the source to a window's first input, modulo 2^32.
    alignas(16) uint32_t offsets[WARP_SIZE][COLUMNS];
  };

  // The block's part of the reduction.
  __device__ static ReductionPart locate_part(const ConvParams& params) {
    return flopcuda::cuda::locate_part<Tile>(params.reduction, Taps::unit(params));
  }

  // first_pixel: the block's first column. columns: how many the problem has from there on. part: of the reduction.
  // slice: the operand's in the first stage. Ends with a barrier.
  __device__ Im2colLoader(const ConvParams& params, int group, Pixel first_pixel, int columns,
                          const ReductionPart& part, const Slice& slice, Shared& shared)
      : params_(params),
        shared_(shared),
        destination_(shared_address(slice.values[first_step()][block_column(0)])),
        source_(static_cast<const Scalar*>(params.input) + first_pixel.image * params.input_image_stride +
                group * params.group_input_extent - Taps::offset_ahead(params, part)),
        taps_(params, locate(params, first_pixel, columns, shared.offsets[lane()]), first_step(), part, shared.taps) {
    __syncthreads();
  }

  // Beyond the reduction, zeros.
  template <class Tally>
  __device__ void copy(uint32_t stage_offset, Tally& tally) {
    // All that is read, before the first copy: the compiler takes none of it across one.
    uint32_t offsets[COLUMNS];
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) offsets[j] = shared_.offsets[lane()][j];
    Tap taps[STEPS];
#pragma unroll
    for (Tap& tap : taps) {
      tap = taps_.next();
      tally.add_padding(tap.marks);
    }
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) {
#pragma unroll
      for (int i = 0; i < STEPS; ++i) {
        copy_async(destination_ + stage_offset + i * (Tile::WARPS * STEP_BYTES) + j * (WARP_SIZE * sizeof(Scalar)),
                   element_at(source_, offsets[j] + taps[i].offset, params_.scalar_bytes), taps[i].is_missing(j));
      }
    }
  }

 private:
  static constexpr int STEP_BYTES = sizeof(Slice) / Tile::BLOCK_K;

  __device__ static int lane() { return threadIdx.x % WARP_SIZE; }
  __device__ static int first_step() { return threadIdx.x / WARP_SIZE; }
  __device__ static int block_column(int j) { return lane() + j * WARP_SIZE; }

  // All warps have the same columns; the first writes their offsets.
  __device__ static Windows<COLUMNS> locate(const ConvParams& params, Pixel first_pixel, int columns,
                                            uint32_t (&offsets)[COLUMNS]) {
    Windows<COLUMNS> windows;
    uint32_t window_offsets[COLUMNS];
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) {
      const Pixel pixel = first_pixel.advance(block_column(j), params.output_pixels);
      const int64_t image_offset = (pixel.image - first_pixel.image) * params.input_image_stride;
      windows.positions[j] = Position::of_window(params, pixel);
      window_offsets[j] = static_cast<uint32_t>(image_offset + windows.positions[j].offset(params));
      if (block_column(j) >= columns) windows.positions[j] = Position::nowhere();
    }
    if (threadIdx.x < WARP_SIZE) memcpy(offsets, window_offsets, sizeof(offsets));
    return windows;
  }

  const ConvParams& params_;
  const Shared& shared_;
  uint32_t destination_;
  const Scalar* source_;  // the group's first channel of the block's first image, less what is in a tap's offset
  Taps taps_;
};

}  // namespace flopcuda::cuda
