// Copies slices of a row-major operand whose rows run along the reduction: a convolution's weight, and both operands of
// a linear layer.
//
// Bottleneck it removes: transactions and registers. Eight lanes read the eight products of a row's slice, one 32-byte
// sector of floats, and scatter them to different banks: the slice is transposed on its way to shared memory, where the
// main loop reads along the rows. Rows need no alignment.
#pragma once

#include <cstdint>

#include "cuda/gemm_main_loop.cuh"
#include "cuda/tiles.h"

namespace flopcuda::cuda {

template <class Tile, int EXTENT>
class RowMajorLoader {
 public:
  using Scalar = typename Tile::Scalar;
  using Slice = OperandSlice<Scalar, EXTENT, Tile::BLOCK_K>;

  // matrix: [any, row_stride], of whose columns the reduction takes the first. The block's rows are those from
  // first_row on, and so many as there are, at least one. slice: the operand's in the first stage.
  __device__ RowMajorLoader(const void* matrix, int64_t first_row, int rows, uint32_t row_stride, int reduction,
                            uint32_t scalar_bytes, const Slice& slice)
      : destination_(shared_address(slice.values[lane_step()][slice_row(0)])),
        source_(static_cast<const Scalar*>(matrix) + first_row * row_stride),
        step_(lane_step()),
        reduction_(reduction),
        scalar_bytes_(scalar_bytes) {
#pragma unroll
    for (int i = 0; i < ROWS; ++i) row_offsets_[i] = min(slice_row(i), rows - 1) * row_stride;
  }

  // Any number of slices can be copied.
  __device__ int prepare(int at_most) const { return at_most; }

  // Of the slice that copy() began.
  __device__ void finish() const { copies_.finish(); }

  // In place of rows that there are not, the last one is copied: nobody uses the outputs. Beyond the reduction, zeros.
  __device__ void copy(uint32_t stage_offset) {
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
      const Scalar* const source = element_at(source_, row_offsets_[i] + step_, scalar_bytes_);
#pragma unroll
      for (int step = 0; step < Tile::BLOCK_K; step += LANES_PER_ROW) {
        copies_.begin(i * STEPS + step / LANES_PER_ROW,
                      destination_ + stage_offset + (step * STEP_STRIDE + i * ROWS_PER_PASS) * sizeof(Scalar),
                      source + step, step_ + step >= reduction_);
      }
    }
    step_ += Tile::BLOCK_K;
  }

 private:
  static constexpr int LANES_PER_ROW = 8;
  static constexpr int ROWS_PER_PASS = Tile::THREADS / LANES_PER_ROW;
  static constexpr int ROWS = EXTENT / ROWS_PER_PASS;  // of one thread
  static constexpr int STEPS = Tile::BLOCK_K / LANES_PER_ROW;
  static constexpr int STEP_STRIDE = sizeof(Slice) / sizeof(Scalar) / Tile::BLOCK_K;
  static_assert(EXTENT % ROWS_PER_PASS == 0 && Tile::BLOCK_K % LANES_PER_ROW == 0, "each thread copies as many values");
  static_assert(int64_t{EXTENT} * MAX_REDUCTION < (int64_t{1} << 32), "32-bit offsets in a block's rows");

  __device__ static int lane_step() { return threadIdx.x % LANES_PER_ROW; }
  __device__ static int slice_row(int i) { return threadIdx.x / LANES_PER_ROW + i * ROWS_PER_PASS; }

  uint32_t destination_;
  const Scalar* source_;        // the block's first row
  uint32_t row_offsets_[ROWS];  // in elements
  uint32_t step_;               // the thread's first of the next slice
  uint32_t reduction_;
  uint32_t scalar_bytes_;
  ScalarCopies<Scalar, ROWS * STEPS> copies_;
};

}  // namespace flopcuda::cuda
