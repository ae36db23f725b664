// The main loop that the convolution and the linear layer share: C[BLOCK_M x BLOCK_N] += A * B over the whole
// reduction.
//
// Bottlenecks it removes, from the outside in:
// - global memory: a block reads each value of A and B once into shared memory and uses it BLOCK_N or BLOCK_M times;
// - latency: there are two stages, so that the next slice is fetched to registers while this one is multiplied, with
//   one barrier a slice;
// - shared memory: a warp works on a compact WARP_M x WARP_N tile, so that a step costs it few distinct 128-bit reads,
//   which broadcast or fall on different banks, and a thread multiplies THREAD_M x THREAD_N products from registers.
// What is left is the multiply-adds themselves, and a few integer instructions that count them (counting.cuh).
#pragma once

#include <cstdint>

#include "cuda/counting.cuh"
#include "cuda/tiles.h"

namespace flopcuda::cuda {

// One slice of an operand in shared memory: values[step][row of A or column of B]. The four floats at the end of a step
// keep 128-bit alignment and put the eight steps that row-major chunks are scattered to on different banks.
template <int EXTENT, int BLOCK_K>
struct OperandSlice {
  alignas(16) float values[BLOCK_K][EXTENT + VECTOR];
};

template <class Tile>
struct GemmShared {
  OperandSlice<Tile::BLOCK_M, Tile::BLOCK_K> a[2];
  OperandSlice<Tile::BLOCK_N, Tile::BLOCK_K> b[2];
};

// Which outputs of the block tile a thread computes: vectors of four consecutive rows and columns, so that lanes read
// and write neighbouring vectors.
template <class Tile>
class ThreadPosition {
 public:
  __device__ ThreadPosition() {
    const int warp = threadIdx.x / WARP_SIZE;
    const int lane = threadIdx.x % WARP_SIZE;
    first_row_ = warp / Tile::WARPS_N * Tile::WARP_M + lane / Tile::LANES_N * VECTOR;
    first_column_ = warp % Tile::WARPS_N * Tile::WARP_N + lane % Tile::LANES_N * VECTOR;
  }

  __device__ int first_row() const { return first_row_; }
  __device__ int first_column() const { return first_column_; }

  // How far the thread's row i is from its first row, and likewise for columns.
  __device__ static constexpr int row_offset(int i) { return i / VECTOR * (Tile::LANES_M * VECTOR) + i % VECTOR; }
  __device__ static constexpr int column_offset(int j) { return j / VECTOR * (Tile::LANES_N * VECTOR) + j % VECTOR; }

  // How many of the thread's rows are among the first so many rows of the block, and likewise for columns.
  __device__ int count_rows(int rows) const {
    int count = 0;
#pragma unroll
    for (int i = 0; i < Tile::THREAD_M; ++i) count += row_offset(i) < rows - first_row_;
    return count;
  }
  __device__ int count_columns(int columns) const {
    int count = 0;
#pragma unroll
    for (int j = 0; j < Tile::THREAD_N; ++j) count += column_offset(j) < columns - first_column_;
    return count;
  }

 private:
  int first_row_;
  int first_column_;
};

__device__ inline float4 load_vector(const float* source) { return *reinterpret_cast<const float4*>(source); }

// The outputs of one thread, and the only place where a GEMM kernel multiplies.
template <class Tile>
struct ThreadTile {
  float accumulators[Tile::THREAD_M][Tile::THREAD_N];

  template <class Tally>
  __device__ void multiply_slice(const GemmShared<Tile>& shared, int stage, const ThreadPosition<Tile>& position,
                                 Tally& tally) {
#pragma unroll
    for (int step = 0; step < Tile::BLOCK_K; ++step) {
      float a[Tile::THREAD_M];
      float b[Tile::THREAD_N];
#pragma unroll
      for (int i = 0; i < Tile::THREAD_M; i += VECTOR) {
        store_fragment(a + i,
                       load_vector(&shared.a[stage].values[step][position.first_row() + position.row_offset(i)]));
      }
#pragma unroll
      for (int j = 0; j < Tile::THREAD_N; j += VECTOR) {
        store_fragment(b + j,
                       load_vector(&shared.b[stage].values[step][position.first_column() + position.column_offset(j)]));
      }
#pragma unroll
      for (int i = 0; i < Tile::THREAD_M; ++i) {
#pragma unroll
        for (int j = 0; j < Tile::THREAD_N; ++j) {
          accumulators[i][j] = __fmaf_rn(a[i], b[j], accumulators[i][j]);
        }
      }
      tally.issue(step, a, b);
    }
  }

 private:
  __device__ static void store_fragment(float* fragment, float4 vector) {
    fragment[0] = vector.x;
    fragment[1] = vector.y;
    fragment[2] = vector.z;
    fragment[3] = vector.w;
  }
};

// Multiplies all slices of the reduction. A loader moves one slice of its operand: fetch(first, stage) reads it from
// global memory to registers, with zeros beyond the problem; commit(stage) writes it to shared memory. The slice after
// the last is fetched as well: it lies beyond the problem, reads nothing, and spares the loop a branch.
template <class Tile, class LoaderA, class LoaderB, class Tally>
__device__ inline void multiply_slices(int reduction, LoaderA& loader_a, LoaderB& loader_b,
                                       const GemmShared<Tile>& shared, const ThreadPosition<Tile>& position,
                                       ThreadTile<Tile>& tile, Tally& tally) {
  loader_a.fetch(0, 0);
  loader_b.fetch(0, 0);
  loader_a.commit(0);
  loader_b.commit(0);
  __syncthreads();

  int stage = 0;
#pragma unroll 1
  for (int first = 0; first < reduction; first += Tile::BLOCK_K) {
    const int next_stage = stage ^ 1;
    loader_a.fetch(first + Tile::BLOCK_K, next_stage);
    loader_b.fetch(first + Tile::BLOCK_K, next_stage);

    tile.multiply_slice(shared, stage, position, tally);
    const int remaining = reduction - first;
    const uint32_t real_steps = (1u << (remaining < Tile::BLOCK_K ? remaining : Tile::BLOCK_K)) - 1;
    tally.settle_slice(real_steps, [&](uint32_t steps) { return loader_b.count_padding(stage, position, steps); });

    loader_a.commit(next_stage);
    loader_b.commit(next_stage);
    __syncthreads();
    stage = next_stage;
  }
}

// Writes the thread's outputs. rows, columns: how many of the problem's come from the block's first on.
// column_pointer(column): where the block's row 0 of a column goes. Four columns are written at once where the problem
// has all four, side by side and at a multiple of 16 bytes.
template <class Tile, class ColumnPointer>
__device__ inline void store_outputs(const ThreadTile<Tile>& tile, const ThreadPosition<Tile>& position, int rows,
                                     int columns, int64_t row_stride, bool vectors_are_aligned,
                                     const ColumnPointer& column_pointer) {
  const int rows_left = rows - position.first_row();
  const int columns_left = columns - position.first_column();
  const auto first_output = [&](int j) {
    return column_pointer(position.first_column() + position.column_offset(j)) + position.first_row() * row_stride;
  };
#pragma unroll
  for (int j = 0; j < Tile::THREAD_N; j += VECTOR) {
    if (vectors_are_aligned && position.column_offset(j) + VECTOR <= columns_left) {
      float* const column = first_output(j);
#pragma unroll
      for (int i = 0; i < Tile::THREAD_M; ++i) {
        if (position.row_offset(i) >= rows_left) continue;
        const float (&outputs)[Tile::THREAD_N] = tile.accumulators[i];
        *reinterpret_cast<float4*>(column + position.row_offset(i) * row_stride) =
            make_float4(outputs[j], outputs[j + 1], outputs[j + 2], outputs[j + 3]);
      }
    } else {
#pragma unroll
      for (int v = j; v < j + VECTOR; ++v) {
        if (position.column_offset(v) >= columns_left) continue;
        float* const column = first_output(v);
#pragma unroll
        for (int i = 0; i < Tile::THREAD_M; ++i) {
          if (position.row_offset(i) < rows_left) column[position.row_offset(i) * row_stride] = tile.accumulators[i][v];
        }
      }
    }
  }
}

}  // namespace flopcuda::cuda
