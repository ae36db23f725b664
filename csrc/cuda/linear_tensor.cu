// Counted linear layer, forward, of float16 and bfloat16 on tensor cores: out[row, o] = sum over i of in[row, i] *
// weight[o, i], summed in float32.
//
// Bottlenecks it removes: the multiply-adds, of which one instruction does 4,096 for a warp; and shared memory. Slices
// come in copies of 16 bytes that a warp's ldmatrix reads without bank conflicts: a row's four chunks of 16 bytes
// change places by bits of the row's number.
#include "cuda/async_copy.cuh"
#include "cuda/counting.cuh"
#include "cuda/params.h"
#include "cuda/tensor_core.cuh"
#include "cuda/tiles.h"

namespace flopcuda::cuda {
namespace {

using Tile = TensorConfig;
constexpr int CHUNK = ACCESS_BYTES / sizeof(__half);       // products that one copy moves
constexpr int ROW_BYTES = Tile::BLOCK_K * sizeof(__half);  // of a slice
constexpr int CHUNKS_PER_ROW = ROW_BYTES / ACCESS_BYTES;
constexpr int SLICE_BYTES = Tile::BLOCK_M * ROW_BYTES;  // of one operand
static_assert(Tile::BLOCK_M == Tile::BLOCK_N && CHUNKS_PER_ROW == 4, "both operands have slices of one layout");

struct Stage {
  alignas(128) char a[SLICE_BYTES];
  alignas(128) char b[SLICE_BYTES];
};

// Where a chunk of a row lies in a slice. The eight rows of a matrix that ldmatrix reads are neighbours in A, and pairs
// that lie PAIR_DISTANCE rows apart in B; in either case one chunk of theirs is on all 32 banks.
constexpr int A_SWAP = 2, PAIR_DISTANCE = 8;
template <int SWAP>
__device__ constexpr int chunk_offset(int row, int chunk) {
  return row * ROW_BYTES + (chunk ^ (row / SWAP % CHUNKS_PER_ROW)) * ACCESS_BYTES;
}

// Copies an operand's slices, whose rows start at multiples of 16 bytes.
template <class Scalar, int SWAP>
class ChunkLoader {
 public:
  __device__ ChunkLoader(const void* matrix, int64_t first_row, int rows, const LinearParams& params, const char* slice)
      : destination_(shared_address(slice[chunk_offset<SWAP>(slice_row(0), chunk())])),
        source_(static_cast<const Scalar*>(matrix) + first_row * params.in_features),
        scalar_bytes_(params.scalar_bytes),
        reduction_(params.in_features),
        step_(chunk() * CHUNK) {
#pragma unroll
    for (int i = 0; i < ROWS; ++i) row_offsets_[i] = min(slice_row(i), rows - 1) * params.in_features;
  }

  // In place of rows that there are not, the last one is copied: nobody uses the outputs. Beyond the reduction, zeros.
  __device__ void copy(uint32_t stage_offset) {
    const uint32_t missing = step_ >= reduction_;
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
      copy_chunk_async(destination_ + stage_offset + i * ROWS_PER_PASS * ROW_BYTES,
                       element_at(source_, row_offsets_[i] + step_, scalar_bytes_), missing);
    }
    step_ += Tile::BLOCK_K;
  }

 private:
  static constexpr int ROWS_PER_PASS = Tile::THREADS / CHUNKS_PER_ROW;
  static constexpr int ROWS = Tile::BLOCK_M / ROWS_PER_PASS;  // of one thread
  static_assert(ROWS_PER_PASS % (SWAP * CHUNKS_PER_ROW) == 0, "all of a thread's rows swap chunks alike");

  __device__ static int chunk() { return threadIdx.x % CHUNKS_PER_ROW; }
  __device__ static int slice_row(int i) { return threadIdx.x / CHUNKS_PER_ROW + i * ROWS_PER_PASS; }

  uint32_t destination_;
  const Scalar* source_;
  uint32_t scalar_bytes_;
  uint32_t reduction_;
  uint32_t step_;  // of the chunk in the next slice
  uint32_t row_offsets_[ROWS];
};

// The outputs of one lane. In the products of 16 x 8 outputs that a warp's mma computes, a lane has two rows, eight
// apart, of two neighbouring columns. Which weight is which column of B is free: columns are taken so that those of a
// lane in four products are neighbours, and leave in one store of 16 bytes.
template <class Scalar>
class WarpTile {
 public:
  __device__ WarpTile(int rows, int columns) : rows_left_(rows - first_row()), columns_left_(columns - first_column()) {
    const int lane = threadIdx.x % WARP_SIZE;
    const int b_column = lane % MATRIX_ROWS / 2 * PAIR_DISTANCE + lane / MMA_M * 2 + lane % 2;
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
      a_offsets_[step] = chunk_offset<A_SWAP>(warp_row() + lane % MMA_M, step * 2 + lane / MMA_M);
      b_offsets_[step] = chunk_offset<PAIR_DISTANCE>(warp_column() + b_column, step * 2 + lane / MATRIX_ROWS % 2);
    }
  }

  // bias: of the block's first column on, or null.
  __device__ void set(const Scalar* bias) {
#pragma unroll
    for (int n = 0; n < TILES_N; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = column_offset(n, i);
        const float initial = bias && column < columns_left_ ? to_float(bias[first_column() + column]) : 0.0f;
#pragma unroll
        for (int m = 0; m < TILES_M; ++m) sums_[m][n][i] = initial;
      }
    }
  }

  // MMA_K products of each output, of which the reduction has so many.
  __device__ void multiply_step(uint32_t a, uint32_t b, int step, int real_products) {
    uint32_t fragment_a[TILES_M][4];
    uint32_t fragment_b[TILES_N / 2][4];
#pragma unroll
    for (int m = 0; m < TILES_M; ++m) load_matrices(fragment_a[m], a + a_offsets_[step] + m * MMA_M * ROW_BYTES);
#pragma unroll
    for (int n = 0; n < TILES_N / 2; ++n) {
      load_matrices(fragment_b[n], b + b_offsets_[step] + column_offset(2 * n, 0) * ROW_BYTES);
    }
#pragma unroll
    for (int m = 0; m < TILES_M; ++m) {
#pragma unroll
      for (int n = 0; n < TILES_N; ++n) {
        multiply_matrices<Scalar>(sums_[m][n], fragment_a[m], fragment_b[n / 2] + n % 2 * 2);
      }
    }
    ++steps_;
    products_ += real_products;
  }

  __device__ void store(Scalar* output, int64_t row_stride, bool rows_are_aligned) const {
#pragma unroll
    for (int m = 0; m < TILES_M; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (row_offset(m, 2 * half) >= rows_left_) continue;
        Scalar* const row = output + (first_row() + row_offset(m, 2 * half)) * row_stride + first_column();
#pragma unroll
        for (int n = 0; n < TILES_N; n += NEIGHBOURS) store_neighbours(row, m, n, half, rows_are_aligned);
      }
    }
  }

  // accumulators_held_bias: whether the first product was added to something.
  __device__ Counters counts(bool accumulators_held_bias) const {
    int rows = 0, columns = 0;
#pragma unroll
    for (int i = 0; i < 2 * TILES_M; ++i) rows += row_offset(i / 2, i % 2 * 2) < rows_left_;
#pragma unroll
    for (int j = 0; j < 2 * TILES_N; ++j) columns += column_offset(j / 2, j % 2) < columns_left_;
    const int64_t outputs = rows * columns;
    Counters counts;
    counts.mul = products_ * outputs;
    counts.add = accumulators_held_bias || products_ == 0 ? counts.mul : counts.mul - outputs;
    // An mma is a warp's; a lane's share of it is that of its sums.
    counts.lane = int64_t{steps_} * (TILES_M * TILES_N * 4 * MMA_K);
    return counts;
  }

 private:
  static constexpr int STEPS = Tile::BLOCK_K / MMA_K;
  static constexpr int TILES_M = Tile::WARP_M / MMA_M, TILES_N = Tile::WARP_N / MMA_N;

  static constexpr int NEIGHBOURS = 4;  // products in which a lane's columns are neighbours
  static_assert(NEIGHBOURS * 2 == CHUNK && TILES_N % NEIGHBOURS == 0, "they fill a store");

  __device__ static int warp_row() { return threadIdx.x / WARP_SIZE / Tile::WARPS_N * Tile::WARP_M; }
  __device__ static int warp_column() { return threadIdx.x / WARP_SIZE % Tile::WARPS_N * Tile::WARP_N; }
  __device__ static int first_row() { return warp_row() + threadIdx.x % WARP_SIZE / 4; }
  __device__ static int first_column() { return warp_column() + threadIdx.x % 4 * PAIR_DISTANCE; }

  // How far a sum's row and column are from the lane's first.
  __device__ static constexpr int row_offset(int m, int i) { return m * MMA_M + i / 2 * MATRIX_ROWS; }
  __device__ static constexpr int column_offset(int n, int i) {
    return n / NEIGHBOURS * (NEIGHBOURS * MMA_N) + n % NEIGHBOURS * 2 + i % 2;
  }

  __device__ void store_neighbours(Scalar* row, int m, int n, int half, bool rows_are_aligned) const {
    const auto sum = [&](int j) { return sums_[m][n + j / 2][2 * half + j % 2]; };
    const int column = column_offset(n, 0);
    if (rows_are_aligned && column + CHUNK <= columns_left_) {
      // By an intrinsic: the compiler would write a vector piece by piece.
      __stwb(reinterpret_cast<uint4*>(row + column),
             make_uint4(round_pair<Scalar>(sum(0), sum(1)), round_pair<Scalar>(sum(2), sum(3)),
                        round_pair<Scalar>(sum(4), sum(5)), round_pair<Scalar>(sum(6), sum(7))));
    } else {
#pragma unroll
      for (int j = 0; j < CHUNK; ++j) {
        if (column + j < columns_left_) row[column + j] = round_to<Scalar>(sum(j));
      }
    }
  }

  float sums_[TILES_M][TILES_N][4];
  uint32_t a_offsets_[STEPS];  // of the row whose address the lane gives, by step
  uint32_t b_offsets_[STEPS];
  int rows_left_, columns_left_;  // of the problem's in the block, from the lane's first on
  uint32_t steps_ = 0;
  uint32_t products_ = 0;  // of each output
};

template <class Scalar>
__device__ void multiply_reduction(const LinearParams& params, ChunkLoader<Scalar, A_SWAP>& input,
                                   ChunkLoader<Scalar, PAIR_DISTANCE>& weight, const Stage (&stages)[Tile::STAGES],
                                   WarpTile<Scalar>& tile) {
  const uint32_t first_stage = shared_address(stages[0].a[0]);
  const auto copy_slices = [&](int stage) {
    input.copy(stage * sizeof(Stage));
    weight.copy(stage * sizeof(Stage));
    end_copy_group();
  };
  const auto await_slice = [] {
    wait_for_copies_but<Tile::STAGES - 2>();
    __syncthreads();
  };
  const auto multiply = [&](int stage, int step, int real_products) {
    const uint32_t a = first_stage + stage * sizeof(Stage);
    tile.multiply_step(a, a + SLICE_BYTES, step, real_products);
  };

#pragma unroll
  for (int stage = 0; stage < Tile::STAGES - 1; ++stage) copy_slices(stage);

  int free_stage = Tile::STAGES - 1;
  int stage = 0;
#pragma unroll 1
  for (int whole_slices = params.in_features / Tile::BLOCK_K; whole_slices > 0; --whole_slices) {
    await_slice();
    copy_slices(free_stage);
#pragma unroll
    for (int step = 0; step < Tile::BLOCK_K / MMA_K; ++step) multiply(stage, step, MMA_K);
    free_stage = stage;
    stage = stage == Tile::STAGES - 1 ? 0 : stage + 1;
  }

  await_slice();
  const int left = params.in_features % Tile::BLOCK_K;
#pragma unroll
  for (int step = 0; step < Tile::BLOCK_K / MMA_K; ++step) {
    if (step * MMA_K < left) multiply(stage, step, min(left - step * MMA_K, MMA_K));
  }
}

template <class Scalar>
__device__ void linear_tensor(const LinearParams& params) {
  // Three stages fill what a kernel may declare: counts are added up where they were.
  __shared__ union {
    Stage stages[Tile::STAGES];
    CountScratch<Tile::THREADS> counts;
  } shared;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x / params.column_tiles) * Tile::BLOCK_M;
  const int64_t first_column = static_cast<int64_t>(blockIdx.x % params.column_tiles) * Tile::BLOCK_N;
  const int rows = static_cast<int>(min(params.rows - first_row, static_cast<int64_t>(Tile::BLOCK_M)));
  const int columns = static_cast<int>(min(params.out_features - first_column, static_cast<int64_t>(Tile::BLOCK_N)));

  ChunkLoader<Scalar, A_SWAP> input(params.input, first_row, rows, params, shared.stages[0].a);
  ChunkLoader<Scalar, PAIR_DISTANCE> weight(params.weight, first_column, columns, params, shared.stages[0].b);
  const bool has_bias = params.bias != nullptr;
  WarpTile<Scalar> tile(rows, columns);
  tile.set(has_bias ? static_cast<const Scalar*>(params.bias) + first_column : nullptr);

  multiply_reduction(params, input, weight, shared.stages, tile);

  tile.store(static_cast<Scalar*>(params.output) + first_row * params.out_features + first_column, params.out_features,
             params.output_is_aligned);
  wait_for_copies_but<0>();  // of the zeros beyond the reduction, too, before their place is used anew
  __syncthreads();
  add_block_counts<Tile::THREADS>(tile.counts(has_bias), params.counters, shared.counts);
}

}  // namespace

#define FLOPCUDA_DEFINE_TENSOR(kernel, share, Scalar, type)                                                         \
  extern "C" __global__ void __launch_bounds__(Tile::THREADS) kernel(const __grid_constant__ LinearParams params) { \
    linear_tensor<Scalar>(params);                                                                                  \
  }

FLOPCUDA_TENSOR_KERNELS(FLOPCUDA_DEFINE_TENSOR)

}  // namespace flopcuda::cuda
