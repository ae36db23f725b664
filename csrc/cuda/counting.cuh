// Counting on the device: what one thread keeps while its multiply-adds issue, and how a block's counts reach the
// launch's record. See common/counters.h for what each counter means.
//
// A count costs little beside the work it counts. A thread's tile is rectangular, so that the products of one step that
// feed real outputs are the same number at every step. The compiler adds up the steps of an unrolled slice: what is
// left of counting in the main loop is one addition, against 256 to 1024 multiply-adds.
#pragma once

#include <cstdint>

#include "common/counters.h"
#include "cuda/tiles.h"
#include "cuda/triangle.cuh"

namespace flopcuda::cuda {

static_assert(sizeof(Counters) == 5 * sizeof(int64_t), "a record is five 64-bit integers: mul, add, pad, zero, lane");

// How many of the values are not zero, of the first so many.
template <class Scalar, int SIZE>
__device__ inline uint32_t count_nonzero(const Scalar (&values)[SIZE], int first) {
  uint32_t nonzero = 0;
#pragma unroll
  for (int i = 0; i < SIZE; ++i) nonzero += (values[i] != Scalar(0)) & (i < first);
  return nonzero;
}

// How many of a thread's rows and columns the problem has. Those come first.
struct ValidOutputs {
  int rows;
  int columns;
};

// The counts of one thread of a GEMM kernel. issue() stands beside the multiply-adds of a step. 32 bits are enough for
// what a thread keeps: MAX_REDUCTION bounds it.
template <class Tile, bool COUNT_ZERO>
class GemmTally {
 public:
  // Steps between two of the main loop's branches: all of a slice, or, where zeros are counted, as many as registers
  // suffice for.
  static constexpr int UNROLLED_STEPS = COUNT_ZERO ? 2 : Tile::BLOCK_K;

  __device__ explicit GemmTally(const ValidOutputs& valid) : valid_(valid) {}

  // The thread issues a step: THREAD_M * THREAD_N multiply-adds, the outer product of two fragments.
  template <class Scalar>
  __device__ void issue(const Scalar (&a)[Tile::THREAD_M], const Scalar (&b)[Tile::THREAD_N]) {
    ++steps_;
    // The non-zero products of an outer product: a non-zero row value meets a non-zero column value.
    if constexpr (COUNT_ZERO) nonzero_ += count_nonzero(a, valid_.rows) * count_nonzero(b, valid_.columns);
  }

  // The thread adds something to the sums of so many outputs.
  __device__ void issue_additions(uint32_t outputs) { additions_ += outputs; }

  // Products of each of the thread's outputs.
  __device__ uint32_t products() const { return steps_; }

  // valid: as the constructor was told, to be found out anew: no register holds it in the main loop.
  // accumulators_held_bias: whether the first product was added to something. padded: products with the padding, of
  // those whose operand the thread has looked up.
  __device__ Counters counts(const ValidOutputs& valid, bool accumulators_held_bias, int64_t padded) const {
    const int64_t outputs = valid.rows * valid.columns;
    return counts(accumulators_held_bias, padded, {outputs, steps_ * outputs});
  }

  // used: of all that the thread issued.
  __device__ Counters counts(bool accumulators_held_bias, const UsedCounts& used) const {
    return counts(accumulators_held_bias, 0, used);
  }

 private:
  __device__ Counters counts(bool accumulators_held_bias, int64_t padded, const UsedCounts& used) const {
    Counters counts;
    counts.mul = used.products;
    // An empty accumulator is given its first product; all others are added to it.
    counts.add = accumulators_held_bias || steps_ == 0 ? counts.mul : counts.mul - used.outputs;
    counts.add += additions_;
    counts.pad = padded;
    // Of one thread, this may be negative: it knows of padding that others multiply.
    if constexpr (COUNT_ZERO) counts.zero = counts.mul - padded - nonzero_;
    counts.lane = static_cast<int64_t>(steps_) * (Tile::THREAD_M * Tile::THREAD_N);
    return counts;
  }

  ValidOutputs valid_;
  uint32_t steps_ = 0;
  uint32_t additions_ = 0;  // but those of multiply-adds
  uint32_t nonzero_ = 0;
};

// What adding up a block's counts takes of shared memory.
template <int THREADS>
struct CountScratch {
  static constexpr int FIELDS = sizeof(Counters) / sizeof(int64_t);
  static constexpr int WARPS = THREADS / WARP_SIZE;
  static_assert(THREADS % WARP_SIZE == 0, "shuffles need whole warps");

  long long warp_sums[WARPS][FIELDS];
};

// Adds the counts of all threads of the block to the launch's record: over the lanes of each warp by shuffles, over the
// warps in shared memory, and one atomic addition per counter. Every thread of the block takes part.
template <int THREADS>
__device__ inline void add_block_counts(const Counters& thread_counts, Counters* record,
                                        CountScratch<THREADS>& scratch) {
  constexpr int FIELDS = CountScratch<THREADS>::FIELDS;
  long long sums[FIELDS] = {thread_counts.mul, thread_counts.add, thread_counts.pad, thread_counts.zero,
                            thread_counts.lane};
  const int lane = threadIdx.x % WARP_SIZE;
#pragma unroll
  for (int field = 0; field < FIELDS; ++field) {
#pragma unroll
    for (int distance = WARP_SIZE / 2; distance > 0; distance /= 2) {
      sums[field] += __shfl_down_sync(0xffffffffu, sums[field], distance);
    }
    if (lane == 0) scratch.warp_sums[threadIdx.x / WARP_SIZE][field] = sums[field];
  }
  __syncthreads();

  if (threadIdx.x < FIELDS) {
    unsigned long long block_sum = 0;
#pragma unroll
    for (int warp = 0; warp < CountScratch<THREADS>::WARPS; ++warp) block_sum += scratch.warp_sums[warp][threadIdx.x];
    if (block_sum != 0) atomicAdd(reinterpret_cast<unsigned long long*>(record) + threadIdx.x, block_sum);
  }
}

template <int THREADS>
__device__ inline void add_block_counts(const Counters& thread_counts, Counters* record) {
  __shared__ CountScratch<THREADS> scratch;
  add_block_counts<THREADS>(thread_counts, record, scratch);
}

}  // namespace flopcuda::cuda
