// The main loop that the convolution and the linear layer share: C[BLOCK_M x BLOCK_N] += A * B over the whole
// reduction.
//
// Bottlenecks it removes, from the outside in:
// - global memory: a block reads each value of A and B once into shared memory and uses it BLOCK_N or BLOCK_M times;
// - latency: slices are copied asynchronously to a ring of STAGES, the last of them STAGES - 1 slices ahead of the one
//   that is multiplied, with one barrier a slice;
// - shared memory: a warp works on a compact WARP_M x WARP_N tile, so that a step costs it few distinct 128-bit reads,
//   which broadcast or fall on different banks, and a thread multiplies THREAD_M x THREAD_N products from registers;
// - other instructions: copies take two each and no branch, and what is left of the reduction after its last whole
//   slice is multiplied step by step, so that the loop asks of no step whether there is such a one.
// What is left is the multiply-adds themselves.
#pragma once

#include <cstdint>

#include "cuda/async_copy.cuh"
#include "cuda/counting.cuh"
#include "cuda/scalar.cuh"
#include "cuda/tiles.h"

namespace flopcuda::cuda {

// One slice of an operand in shared memory: values[step][row of A or column of B]. The 16 bytes at the end of a step
// keep 128-bit alignment and put the eight steps of four rows, which a warp copies at once, on different banks.
template <class Scalar, int EXTENT, int BLOCK_K>
struct OperandSlice {
  alignas(16) Scalar values[BLOCK_K][EXTENT + VECTOR<Scalar>];
};

template <class Tile>
struct GemmStage {
  OperandSlice<typename Tile::Scalar, Tile::BLOCK_M, Tile::BLOCK_K> a;
  OperandSlice<typename Tile::Scalar, Tile::BLOCK_N, Tile::BLOCK_K> b;
};

// Which outputs of the block tile a thread computes: vectors of consecutive rows and columns, so that lanes read and
// write neighbouring vectors.
template <class Tile>
class ThreadPosition {
 public:
  __device__ ThreadPosition() {
    const int warp = threadIdx.x / WARP_SIZE;
    const int lane = threadIdx.x % WARP_SIZE;
    first_row_ = warp / Tile::WARPS_N * Tile::WARP_M + lane / Tile::LANES_N * Tile::VECTOR;
    first_column_ = warp % Tile::WARPS_N * Tile::WARP_N + lane % Tile::LANES_N * Tile::VECTOR;
  }

  __device__ int first_row() const { return first_row_; }
  __device__ int first_column() const { return first_column_; }

  // How far the thread's row i is from its first row, and likewise for columns.
  __device__ static constexpr int row_offset(int i) {
    return i / Tile::VECTOR * (Tile::LANES_M * Tile::VECTOR) + i % Tile::VECTOR;
  }
  __device__ static constexpr int column_offset(int j) {
    return j / Tile::VECTOR * (Tile::LANES_N * Tile::VECTOR) + j % Tile::VECTOR;
  }

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

// The outputs of one thread, and the only place where a GEMM kernel multiplies.
template <class Tile>
struct ThreadTile {
  using Scalar = typename Tile::Scalar;

  Scalar accumulators[Tile::THREAD_M][Tile::THREAD_N];

  template <class Tally>
  __device__ void multiply_step(const GemmStage<Tile>& stage, int step, const ThreadPosition<Tile>& position,
                                Tally& tally) {
    Scalar a[Tile::THREAD_M];
    Scalar b[Tile::THREAD_N];
#pragma unroll
    for (int i = 0; i < Tile::THREAD_M; i += Tile::VECTOR) {
      load_vector(vector_of(a, i), &stage.a.values[step][position.first_row() + position.row_offset(i)]);
    }
#pragma unroll
    for (int j = 0; j < Tile::THREAD_N; j += Tile::VECTOR) {
      load_vector(vector_of(b, j), &stage.b.values[step][position.first_column() + position.column_offset(j)]);
    }
#pragma unroll
    for (int i = 0; i < Tile::THREAD_M; ++i) {
#pragma unroll
      for (int j = 0; j < Tile::THREAD_N; ++j) accumulators[i][j] = multiply_add(a[i], b[j], accumulators[i][j]);
    }
    tally.issue(a, b);
  }
};

// Multiplies the whole reduction. A loader's copy(stage_offset) begins to copy the next slice of its operand, to the
// stage that lies so many bytes behind the first; finish() is called when another slice has been multiplied meanwhile,
// if one has arrived. Before, loader_b.prepare(at_most) finds out what it needs to know of the next slices, and returns
// of how many: as many as it may, but STAGES - 1 the first time.
template <class Tile, class LoaderA, class LoaderB, class Tally>
__device__ inline void multiply_reduction(int reduction, LoaderA& loader_a, LoaderB& loader_b,
                                          const GemmStage<Tile> (&stages)[Tile::STAGES], ThreadTile<Tile>& tile,
                                          Tally& tally) {
  const ThreadPosition<Tile> position;
  const auto copy_slices = [&](int stage) {
    loader_b.copy(stage * sizeof(GemmStage<Tile>));
    loader_a.copy(stage * sizeof(GemmStage<Tile>));
    end_copy_group();
  };
  const auto finish_slices = [&] {
    loader_b.finish();
    loader_a.finish();
  };
  // Until the slice that was begun first has arrived, for all threads; all have read the one before.
  const auto await_slice = [] {
    wait_for_copies_but<Tile::STAGES - 2>();
    __syncthreads();
  };

  loader_b.prepare(Tile::STAGES - 1);
#pragma unroll
  for (int stage = 0; stage < Tile::STAGES - 1; ++stage) {
    copy_slices(stage);
    finish_slices();
  }

  int free_stage = Tile::STAGES - 1;
  int stage = 0;
  int slices_left = reduction / Tile::BLOCK_K;
#pragma unroll 1
  while (slices_left > 0) {
    int prepared = loader_b.prepare(slices_left);
    slices_left -= prepared;
#pragma unroll 1
    for (; prepared > 0; --prepared) {
      await_slice();
      copy_slices(free_stage);
#pragma unroll Tally::UNROLLED_STEPS
      for (int step = 0; step < Tile::BLOCK_K; ++step) tile.multiply_step(stages[stage], step, position, tally);
      finish_slices();
      free_stage = stage;
      stage = stage == Tile::STAGES - 1 ? 0 : stage + 1;
    }
  }

  wait_for_copies_but<0>();  // of zeros beyond the reduction, too: no thread ends before its copies
  __syncthreads();
#pragma unroll 1
  for (int step = 0; step < reduction % Tile::BLOCK_K; ++step) {
    tile.multiply_step(stages[stage], step, position, tally);
  }
}

// Writes the thread's outputs. rows, columns: how many of the problem's come from the block's first on.
// column_pointer(column): where the block's row 0 of a column goes. A vector of columns is written at once where the
// problem has all of it, side by side and at a multiple of 16 bytes.
template <class Tile, class ColumnPointer>
__device__ inline void store_outputs(const ThreadTile<Tile>& tile, const ThreadPosition<Tile>& position, int rows,
                                     int columns, int64_t row_stride, bool vectors_are_aligned,
                                     const ColumnPointer& column_pointer) {
  using Scalar = typename Tile::Scalar;
  const int rows_left = rows - position.first_row();
  const int columns_left = columns - position.first_column();
  const auto first_output = [&](int j) {
    return column_pointer(position.first_column() + position.column_offset(j)) + position.first_row() * row_stride;
  };
#pragma unroll
  for (int j = 0; j < Tile::THREAD_N; j += Tile::VECTOR) {
    if (vectors_are_aligned && position.column_offset(j) + Tile::VECTOR <= columns_left) {
      Scalar* const column = first_output(j);
#pragma unroll
      for (int i = 0; i < Tile::THREAD_M; ++i) {
        if (position.row_offset(i) >= rows_left) continue;
        store_vector(column + position.row_offset(i) * row_stride, vector_of(tile.accumulators[i], j));
      }
    } else {
#pragma unroll
      for (int v = j; v < j + Tile::VECTOR; ++v) {
        if (position.column_offset(v) >= columns_left) continue;
        Scalar* const column = first_output(v);
#pragma unroll
        for (int i = 0; i < Tile::THREAD_M; ++i) {
          if (position.row_offset(i) < rows_left) column[position.row_offset(i) * row_stride] = tile.accumulators[i][v];
        }
      }
    }
  }
}

}  // namespace flopcuda::cuda
