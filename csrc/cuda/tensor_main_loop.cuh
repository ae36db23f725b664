// The main loop that the kernels on tensor cores share: C[BLOCK_M x BLOCK_N] += A * B^T over the whole reduction, both
// operands row-major along it, summed in float32, or float64 in float64.
//
// Bottlenecks it removes: the multiply-adds, of which one instruction does 2,048 for a warp, 1,024 of TF32, or 256 of
// float64; and shared memory. Slices come in copies of 16 bytes, and are read without bank conflicts
// (tensor_fragments.cuh).
//
// A reduction is so many segments of one length: one, or a convolution's taps. No slice has products of two segments.
#pragma once

#include <cstdint>

#include "cuda/async_copy.cuh"
#include "cuda/counting.cuh"
#include "cuda/split_sums.cuh"
#include "cuda/tensor_core.cuh"
#include "cuda/tensor_fragments.cuh"
#include "cuda/tiles.h"

namespace flopcuda::cuda {

// Tensor cores before those of sm_80 do not know these instructions; nor is a kernel on them chosen there (device.cpp).
constexpr bool HAS_TENSOR_KERNELS = HAS_ASYNC_COPIES;

// One slice of each operand.
template <class Tile>
struct TensorStage {
  static_assert(Tile::ROW_BYTES == CHUNKS_PER_ROW * ACCESS_BYTES, "slices of one layout");
  alignas(128) char a[Tile::BLOCK_M * Tile::ROW_BYTES];
  alignas(128) char b[Tile::BLOCK_N * Tile::ROW_BYTES];
};

// Three stages of large tiles fill what a kernel may declare: counts are added up where they were.
template <class Tile>
union TensorShared {
  TensorStage<Tile> stages[Tile::STAGES];
  CountScratch<Tile::THREADS> counts;
};

// Which product of a slice is the first that the thread copies.
template <class Tile>
__device__ inline int first_product() {
  return threadIdx.x % CHUNKS_PER_ROW * Tile::CHUNK;
}

// The chunks of a slice that one thread copies: one of each of ROWS rows.
template <class Tile, int EXTENT, int SWAP>
struct CopiedChunks {
  static constexpr int ROWS_PER_PASS = Tile::THREADS / CHUNKS_PER_ROW;
  static constexpr int ROWS = EXTENT / ROWS_PER_PASS;
  static_assert(EXTENT % ROWS_PER_PASS == 0, "each thread copies as many");
  static_assert(ROWS_PER_PASS % (SWAP * CHUNKS_PER_ROW) == 0, "all of a thread's rows swap chunks alike");

  __device__ static int chunk() { return threadIdx.x % CHUNKS_PER_ROW; }
  __device__ static int row(int i) { return threadIdx.x / CHUNKS_PER_ROW + i * ROWS_PER_PASS; }
  __device__ static int first_offset() { return chunk_offset<SWAP>(row(0), chunk()); }
  __device__ static constexpr int offset_from_first(int i) { return i * ROWS_PER_PASS * Tile::ROW_BYTES; }
};

// Copies the slices of a matrix whose rows start at multiples of 16 bytes.
template <class Tile, int EXTENT, int SWAP, bool COUNT_ZERO>
class RowChunkLoader {
  using Chunks = CopiedChunks<Tile, EXTENT, SWAP>;
  using Scalar = TensorScalar<Tile::TYPE>;

 public:
  // The block's rows are those from first_row on, and so many as there are, at least one. slice: of the first stage.
  __device__ RowChunkLoader(const void* matrix, int64_t first_row, int rows, uint32_t row_stride, uint32_t scalar_bytes,
                            const char* slice)
      : destination_(shared_address(slice[Chunks::first_offset()])),
        source_(static_cast<const Scalar*>(matrix) + first_row * row_stride + first_product<Tile>()),
        scalar_bytes_(scalar_bytes),
        rows_(rows) {
#pragma unroll
    for (int i = 0; i < Chunks::ROWS; ++i) row_offsets_[i] = min(Chunks::row(i), rows - 1) * row_stride;
  }

  // Of the slices to come, the thread's chunks are zeros if they lie beyond the segment. In place of rows that there
  // are not, the last one is copied: nobody uses the outputs. Where zeros are counted, they are zeros.
  __device__ void begin_run(bool is_beyond) {
    missing_ = is_beyond ? ~0u : 0;
#pragma unroll
    for (int i = 0; i < Chunks::ROWS; ++i) missing_ |= (COUNT_ZERO && Chunks::row(i) >= rows_) << i;
  }

  // The thread's chunks of the next slice.
  __device__ void copy(uint32_t stage_offset) {
#pragma unroll
    for (int i = 0; i < Chunks::ROWS; ++i) {
      copy_chunk_async(destination_ + stage_offset + Chunks::offset_from_first(i),
                       element_at(source_, row_offsets_[i], scalar_bytes_), missing_, COUNT_ZERO ? 1u << i : 1u);
    }
    source_ += Tile::BLOCK_K;
  }

  // The next segment begins so many products behind the start of the last, from which the copies have come so far.
  __device__ void begin_segment(int stride, int copied_length) { source_ += stride - copied_length; }

  // Nothing of a matrix is padding.
  __device__ void count_segment(uint32_t) {}

 private:
  uint32_t destination_;
  const Scalar* source_;  // the thread's chunk of the next slice, in the block's first row
  uint32_t scalar_bytes_;
  int rows_;
  uint32_t row_offsets_[Chunks::ROWS];
  uint32_t missing_;  // a bit of each row
};

// The outputs of one lane. In the products of 16 x 8 outputs that a warp's mma computes, a lane has two rows, eight
// apart, of two neighbouring columns. Which row of the slice is which column of B is free: they are taken so that those
// of a lane in some products are neighbours, and leave in one store of 16 bytes.
template <class Tile, bool COUNT_ZERO>
class WarpTile {
 public:
  using Scalar = TensorScalar<Tile::TYPE>;

  __device__ WarpTile(int rows, int columns)
      : fragments_(warp_row(), warp_column()),
        rows_left_(rows - first_row()),
        columns_left_(columns - first_column()) {}

  // bias: of the block's first column on, or null.
  __device__ void set(const Scalar* bias) {
#pragma unroll
    for (int n = 0; n < TILES_N; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = column_offset(n, i);
        const Sum initial = bias && column < columns_left_ ? to_sum(bias[first_column() + column]) : Sum(0);
#pragma unroll
        for (int m = 0; m < TILES_M; ++m) sums_[m][n][i] = initial;
      }
    }
  }

  // MMA_K products of each output, of which the reduction has so many. a, b: the addresses of the slices.
  __device__ void multiply_step(uint32_t a, uint32_t b, int step, int real_products) {
    Word fragment_a[TILES_M][4];
    Word fragment_b[TILES_N / 2][4];
#pragma unroll
    for (int m = 0; m < TILES_M; ++m) fragments_.read_a(fragment_a[m], a + m * MMA_M * Tile::ROW_BYTES, step);
#pragma unroll
    for (int n = 0; n < TILES_N / 2; ++n) {
      fragments_.read_b(fragment_b[n], b + column_offset(2 * n, 0) * Tile::ROW_BYTES, step);
    }
#pragma unroll
    for (int m = 0; m < TILES_M; ++m) {
#pragma unroll
      for (int n = 0; n < TILES_N; ++n) {
        multiply_matrices<Tile::TYPE>(sums_[m][n], fragment_a[m], fragment_b[n / 2] + n % 2 * 2);
      }
    }
    ++steps_;
    products_ += real_products;
    if constexpr (COUNT_ZERO) nonzero_ += count_nonzero_products<Tile::TYPE>(fragment_a, fragment_b);
  }

  // Products of each output so far.
  __device__ uint32_t products() const { return products_; }

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

  // Whether the block is the one to store the outputs, as split_sums.cuh says; count(part): the lane's additions.
  template <class Count>
  __device__ bool combine_parts(const SplitWorkspace& workspace, const Count& count) {
    return flopcuda::cuda::combine_parts<Tile>(workspace, sums_, [&](uint32_t part) { additions_ += count(part); });
  }

  // Outputs that nobody uses become 0.
  __device__ void clear_unused(const UsedPart& used) {
#pragma unroll
    for (int m = 0; m < TILES_M; ++m) {
#pragma unroll
      for (int n = 0; n < TILES_N; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (!used.uses(first_row() + row_offset(m, i), first_column() + column_offset(n, i))) sums_[m][n][i] = 0;
        }
      }
    }
  }

  // accumulators_held_bias: whether the first product was added to something. padded: products with the padding, of
  // those whose operand the thread has copied.
  __device__ Counters counts(bool accumulators_held_bias, int64_t padded) const {
    const int64_t outputs = count_outputs();
    return counts(accumulators_held_bias, padded, {outputs, products_ * outputs});
  }

  __device__ Counters counts(bool accumulators_held_bias, const UsedPart& used) const {
    return counts(accumulators_held_bias, 0, count_of(used, products_));
  }

  __device__ int count_outputs() const {
    int rows = 0;
#pragma unroll
    for (int i = 0; i < 2 * TILES_M; ++i) rows += row_offset(i / 2, i % 2 * 2) < rows_left_;
    return rows * count_columns(columns_left_);
  }

  // What the lane uses of so many products.
  __device__ UsedCounts count_of(const UsedPart& used, uint32_t products) const {
    return count_used<2 * TILES_M>(
        used, products, rows_left_ + first_row(), [](int i) { return first_row() + row_offset(i / 2, i % 2 * 2); },
        [&](int limit) { return count_columns(min(columns_left_, limit - first_column())); });
  }

 private:
  using Sum = TensorSum<Tile::TYPE>;
  using Word = TensorWord<Tile::TYPE>;

  static constexpr int TILES_M = Tile::WARP_M / MMA_M, TILES_N = Tile::WARP_N / MMA_N;

  static_assert(int64_t{MAX_REDUCTION} * TILES_M * TILES_N * 4 < (int64_t{1} << 32), "32-bit counts of a lane");

  static constexpr int NEIGHBOURS = Tile::CHUNK / 2;  // products in which a lane's columns are neighbours
  static_assert(TILES_N % NEIGHBOURS == 0 && TILES_N % 2 == 0, "they fill a store; two are read at once");

  __device__ static int warp_row() { return threadIdx.x / WARP_SIZE / Tile::WARPS_N * Tile::WARP_M; }
  __device__ static int warp_column() { return threadIdx.x / WARP_SIZE % Tile::WARPS_N * Tile::WARP_N; }
  __device__ static int first_row() { return warp_row() + threadIdx.x % WARP_SIZE / 4; }
  __device__ static int first_column() { return warp_column() + threadIdx.x % 4 * Tile::CHUNK; }

  // How far a sum's row and column are from the lane's first.
  __device__ static constexpr int row_offset(int m, int i) { return m * MMA_M + i / 2 * MATRIX_ROWS; }
  __device__ static constexpr int column_offset(int n, int i) {
    return n / NEIGHBOURS * (NEIGHBOURS * MMA_N) + n % NEIGHBOURS * 2 + i % 2;
  }

  __device__ Counters counts(bool accumulators_held_bias, int64_t padded, const UsedCounts& used) const {
    Counters counts;
    counts.mul = used.products;
    counts.add = accumulators_held_bias || products_ == 0 ? counts.mul : counts.mul - used.outputs;
    counts.add += additions_;
    counts.pad = padded;
    // Of one thread, this may be negative: it copies for the others.
    if constexpr (COUNT_ZERO) counts.zero = counts.mul - padded - nonzero_;
    // An mma is a warp's; a lane's share of it is that of its sums.
    counts.lane = int64_t{steps_} * (TILES_M * TILES_N * 4 * Tile::MMA_K);
    return counts;
  }

  // Of the lane's, those among so many from its first on.
  __device__ static int count_columns(int columns) {
    int count = 0;
#pragma unroll
    for (int j = 0; j < 2 * TILES_N; ++j) count += column_offset(j / 2, j % 2) < columns;
    return count;
  }

  __device__ void store_neighbours(Scalar* row, int m, int n, int half, bool rows_are_aligned) const {
    const auto sum = [&](int j) { return sums_[m][n + j / 2][2 * half + j % 2]; };
    const int column = column_offset(n, 0);
    if (rows_are_aligned && column + Tile::CHUNK <= columns_left_) {
      // By an intrinsic: the compiler would write a vector piece by piece.
      __stwb(reinterpret_cast<uint4*>(row + column),
             make_uint4(round_word<Scalar>(sum, 0), round_word<Scalar>(sum, 1), round_word<Scalar>(sum, 2),
                        round_word<Scalar>(sum, 3)));
    } else {
#pragma unroll
      for (int j = 0; j < Tile::CHUNK; ++j) {
        if (column + j < columns_left_) row[column + j] = round_to<Scalar>(sum(j));
      }
    }
  }

  FragmentReader<Tile> fragments_;
  Sum sums_[TILES_M][TILES_N][4];
  int rows_left_, columns_left_;  // of the problem's in the block, from the lane's first on
  uint32_t steps_ = 0;
  uint32_t products_ = 0;   // of each output
  uint32_t additions_ = 0;  // but those of multiply-adds
  uint32_t nonzero_ = 0;
};

struct Reduction {
  int segments;
  int length;         // products of a segment
  int copied_length;  // with the zeros behind them, as far as copies go
  int stride;         // from a segment to the next
};

// Copies the slices of both operands in order, in runs of slices that are copied alike: a segment's whole ones, and one
// that it does not fill. So the main loop asks for no slice where it lies.
//
// A loader's copy(stage_offset) begins to copy its operand's next slice, to the stage that lies so many bytes behind
// the first; begin_run(is_beyond) says whether the thread's products in the run lie beyond the segment,
// count_segment(products) how many products of each output a segment's copies are of, before its first run, and
// begin_segment follows its last slice if there is another segment.
template <class Tile, class LoaderA, class LoaderB>
class SliceCopies {
 public:
  __device__ SliceCopies(const Reduction& reduction, LoaderA& a, LoaderB& b)
      : reduction_(reduction),
        a_(a),
        b_(b),
        segments_left_(reduction.segments),
        products_left_(reduction.copied_length) {
    a_.count_segment(reduction_.length);
  }

  // The next so many slices, or fewer, are of one run: how many.
  __device__ int begin(int slices) {
    if (run_ == 0) begin_run();
    const int begun = min(slices, run_);
    run_ -= begun;
    return begun;
  }

  __device__ void copy(uint32_t stage) {
    a_.copy(stage);
    b_.copy(stage);
    end_copy_group();
  }

 private:
  // Behind the last segment are zeros.
  __device__ void begin_run() {
    if (products_left_ <= 0 && segments_left_ > 1) begin_segment();
    const bool is_beyond = first_product<Tile>() >= products_left_;
    a_.begin_run(is_beyond);
    b_.begin_run(is_beyond);
    run_ = max(products_left_ / Tile::BLOCK_K, 1);
    products_left_ -= run_ * Tile::BLOCK_K;
  }

  __device__ void begin_segment() {
    --segments_left_;
    const int copied_length = reduction_.copied_length - products_left_;
    a_.begin_segment(reduction_.stride, copied_length);
    b_.begin_segment(reduction_.stride, copied_length);
    a_.count_segment(reduction_.length);
    products_left_ = reduction_.copied_length;
  }

  const Reduction& reduction_;
  LoaderA& a_;
  LoaderB& b_;
  int run_ = 0;  // its slices that have not been begun
  int segments_left_;
  int products_left_;  // of the segment, behind the run; the same for all threads
};

// Multiplies the whole reduction.
template <class Tile, class LoaderA, class LoaderB, class Outputs>
__device__ inline void multiply_segments(const Reduction& reduction, LoaderA& loader_a, LoaderB& loader_b,
                                         const TensorStage<Tile> (&stages)[Tile::STAGES], Outputs& tile) {
  using Stage = TensorStage<Tile>;
  SliceCopies<Tile, LoaderA, LoaderB> copies(reduction, loader_a, loader_b);
#pragma unroll
  for (int stage = 0; stage < Tile::STAGES - 1; ++stage) {
    copies.begin(1);
    copies.copy(stage * sizeof(Stage));
  }

  const uint32_t first_stage = shared_address(stages[0].a[0]);
  uint32_t free_stage = (Tile::STAGES - 1) * sizeof(Stage);
  uint32_t stage = 0;
  // Copies a slice, and multiplies the one that was begun first.
  const auto multiply_slice = [&](int products) {
    // Until it has arrived, for all threads; all have read the one before.
    wait_for_copies_but<Tile::STAGES - 2>();
    __syncthreads();
    copies.copy(free_stage);
    const uint32_t a = first_stage + stage;
#pragma unroll
    for (int step = 0; step < Tile::BLOCK_K / Tile::MMA_K; ++step) {
      const int left = products - step * Tile::MMA_K;
      if (left > 0) tile.multiply_step(a, a + sizeof(Stage::a), step, min(left, Tile::MMA_K));
    }
    free_stage = stage;
    stage = stage == (Tile::STAGES - 1) * sizeof(Stage) ? 0 : stage + sizeof(Stage);
  };

  // Segments of whole slices are multiplied as one: only copies ask where a segment ends.
  const int left = reduction.length % Tile::BLOCK_K;
  const bool is_one = left == 0;
  const int whole_slices = reduction.length / Tile::BLOCK_K * (is_one ? reduction.segments : 1);
#pragma unroll 1
  for (int segments = is_one ? 1 : reduction.segments; segments > 0; --segments) {
    for (int slices = whole_slices; slices > 0;) {
      const int run = copies.begin(slices);
      slices -= run;
#pragma unroll 1
      for (int slice = 0; slice < run; ++slice) multiply_slice(Tile::BLOCK_K);
    }
    if (left > 0) {
      copies.begin(1);
      multiply_slice(left);
    }
  }
  wait_for_copies_but<0>();  // of the zeros beyond the reduction, too, before their place is used anew
  __syncthreads();
}

}  // namespace flopcuda::cuda
