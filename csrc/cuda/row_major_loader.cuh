// Loads slices of a row-major operand whose rows run along the reduction: a convolution's weight, and both operands of
// a linear layer.
//
// Bottleneck it removes: transactions. Where rows start at multiples of 16 bytes, two lanes read the eight products of
// a row's slice as two 128-bit vectors, so that every 32-byte sector fetched is used whole. The slice is transposed on
// its way to shared memory, where the main loop reads along the rows; 16 rows x 2 chunks of a warp fall on 32 different
// banks.
#pragma once

#include <cstdint>

#include "cuda/gemm_main_loop.cuh"
#include "cuda/tiles.h"

namespace flopcuda::cuda {

// Where each thread reads. Kept in shared memory: the main loop, which has all registers busy, reads it once a slice.
template <class Tile, int EXTENT>
struct RowMajorShared {
  static constexpr int CHUNKS_PER_ROW = Tile::BLOCK_K / VECTOR;
  static constexpr int ROWS_PER_PASS = Tile::THREADS / CHUNKS_PER_ROW;
  static constexpr int CHUNKS = (EXTENT + ROWS_PER_PASS - 1) / ROWS_PER_PASS;

  const float* sources[CHUNKS][Tile::THREADS];  // null: there is no such row
};

template <class Tile, int EXTENT>
class RowMajorLoader {
 public:
  using Slice = OperandSlice<EXTENT, Tile::BLOCK_K>;
  using Shared = RowMajorShared<Tile, EXTENT>;

  // matrix: [any, reduction]. The block's rows are those from first_row on, and so many as there are.
  __device__ RowMajorLoader(const float* matrix, int64_t first_row, int rows, int reduction, bool is_aligned,
                            Slice (&slices)[2], Shared& shared)
      : destination_(slices[0].values[0] + first_step() * STEP_STRIDE + block_row(0)),
        shared_(shared),
        reduction_(reduction),
        is_aligned_(is_aligned) {
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; ++chunk) {
      const int row = block_row(chunk);
      shared.sources[chunk][threadIdx.x] = row < rows ? matrix + (first_row + row) * reduction + first_step() : nullptr;
    }
  }

  __device__ void fetch(int first, int /*stage*/) {
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; ++chunk) {
      const float* const row = shared_.sources[chunk][threadIdx.x];
      const float* const source = row + first;
      const int left = row ? reduction_ - first_step() - first : 0;  // products of the row from the source on
      float4 values = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      if (is_aligned_) {
        if (left > 0) values = __ldg(reinterpret_cast<const float4*>(source));
      } else {
        if (left > 0) values.x = __ldg(source);
        if (left > 1) values.y = __ldg(source + 1);
        if (left > 2) values.z = __ldg(source + 2);
        if (left > 3) values.w = __ldg(source + 3);
      }
      values_[chunk] = values;
    }
  }

  __device__ void commit(int stage) {
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; ++chunk) {
      if (EXTENT % ROWS_PER_PASS != 0 && block_row(chunk) >= EXTENT) continue;
      float* const destination = destination_ + stage * (Tile::BLOCK_K * STEP_STRIDE) + chunk * ROWS_PER_PASS;
      destination[0 * STEP_STRIDE] = values_[chunk].x;
      destination[1 * STEP_STRIDE] = values_[chunk].y;
      destination[2 * STEP_STRIDE] = values_[chunk].z;
      destination[3 * STEP_STRIDE] = values_[chunk].w;
    }
  }

  // A matrix has no padding.
  __device__ int count_padding(int, const ThreadPosition<Tile>&, uint32_t) const { return 0; }

 private:
  static constexpr int STEP_STRIDE = EXTENT + VECTOR;
  static constexpr int CHUNKS = Shared::CHUNKS;
  static constexpr int ROWS_PER_PASS = Shared::ROWS_PER_PASS;

  __device__ static int block_row(int chunk) { return threadIdx.x / Shared::CHUNKS_PER_ROW + chunk * ROWS_PER_PASS; }
  // The first of the thread's four steps in every slice.
  __device__ static int first_step() { return threadIdx.x % Shared::CHUNKS_PER_ROW * VECTOR; }

  float* destination_;  // of the first chunk, in stage 0
  Shared& shared_;
  int reduction_;
  bool is_aligned_;
  float4 values_[CHUNKS];
};

}  // namespace flopcuda::cuda
