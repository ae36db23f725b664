// Counting on the device: what one thread keeps while its multiply-adds issue, and how a block's counts reach the
// launch's record. See common/counters.h for what each counter means.
//
// A count costs little beside the work it counts. A thread's tile is rectangular, so the products of one step that feed
// real outputs are valid_rows * valid_columns; and steps are marked as bits where their multiply-adds issue, so that a
// slice of eight steps is settled by a few integer instructions against the 256 or 512 multiply-adds it issued.
#pragma once

#include <cstdint>

#include "common/counters.h"
#include "cuda/tiles.h"

namespace flopcuda::cuda {

static_assert(sizeof(Counters) == 5 * sizeof(int64_t), "a record is five 64-bit integers: mul, add, pad, zero, lane");

// The counts of one thread, fields as in Counters. 32 bits are enough: MAX_REDUCTION bounds what a thread can issue.
struct ThreadCounts {
  uint32_t mul = 0;
  uint32_t add = 0;
  uint32_t pad = 0;
  uint32_t zero = 0;
  uint32_t lane = 0;
};

template <int SIZE>
__device__ inline uint32_t count_nonzero(const float (&values)[SIZE]) {
  uint32_t nonzero = 0;
#pragma unroll
  for (int i = 0; i < SIZE; ++i) nonzero += values[i] != 0.0f;
  return nonzero;
}

// How often each step of a slice was issued, up to three times: bit k of `once` and `twice` are the binary digits of
// step k's count. Where a slice is unrolled the compiler knows both, and nothing of this is left to execute.
struct IssuedSteps {
  uint32_t once = 0;
  uint32_t twice = 0;

  __device__ void issue(int step) {
    const uint32_t bit = 1u << step;
    twice ^= once & bit;
    once ^= bit;
  }
  // The sum over these steps of count_of(bits), a count that is additive over steps.
  template <class CountOf>
  __device__ uint32_t sum(uint32_t steps, const CountOf& count_of) const {
    return count_of(once & steps) + 2 * count_of(twice & steps);
  }
};

// Repeats the bits of one byte in all four.
__device__ inline uint32_t in_every_byte(uint32_t byte) { return byte * 0x01010101u; }

// How many of the rows and of the outputs of a thread the problem has.
struct alignas(8) ValidOutputs {
  uint32_t rows;
  uint32_t outputs;
};

// Kept in shared memory: the main loop, which has all registers busy, needs it once a slice.
template <class Tile>
struct GemmTallyShared {
  ValidOutputs valid[Tile::THREADS];
};

// The counts of one thread of a GEMM kernel. issue() stands beside the multiply-adds of a step; settle_slice() turns
// the steps issued in a slice into counts. Rows and columns that the problem does not have are held as zeros by both
// operands.
template <class Tile, bool COUNT_ZERO>
class GemmTally {
 public:
  // valid_rows, valid_columns: how many of the thread's rows and columns the problem has. accumulators_hold_bias:
  // whether the first product is added to something.
  __device__ GemmTally(int valid_rows, int valid_columns, bool accumulators_hold_bias, GemmTallyShared<Tile>& shared)
      : shared_(shared), accumulators_are_empty_(!accumulators_hold_bias) {
    shared.valid[threadIdx.x] = {static_cast<uint32_t>(valid_rows), static_cast<uint32_t>(valid_rows * valid_columns)};
  }

  // The thread issues THREAD_M * THREAD_N multiply-adds: the outer product of the fragments of this step.
  __device__ void issue(int step, const float (&a)[Tile::THREAD_M], const float (&b)[Tile::THREAD_N]) {
    issued_steps_.issue(step);
    counts_.lane += Tile::THREAD_M * Tile::THREAD_N;
    // The non-zero products of an outer product: a non-zero row value meets a non-zero column value.
    if constexpr (COUNT_ZERO) nonzero_products_ += count_nonzero(a) * count_nonzero(b);
  }

  // real_steps: bit k is set if the problem has product k of this slice. count_padding(steps): how many taps of the
  // thread's columns lie in the padding at these steps.
  template <class CountPadding>
  __device__ void settle_slice(uint32_t real_steps, const CountPadding& count_padding) {
    const ValidOutputs valid = shared_.valid[threadIdx.x];
    // Of each valid output.
    const uint32_t products = issued_steps_.sum(real_steps, [](uint32_t steps) { return __popc(steps); });
    // An empty accumulator is given its first product; all later ones are added to it.
    const uint32_t first_products = accumulators_are_empty_ && products != 0 ? 1 : 0;
    accumulators_are_empty_ = accumulators_are_empty_ && products == 0;
    const uint32_t padding = issued_steps_.sum(real_steps, count_padding) * valid.rows;
    counts_.mul += products * valid.outputs;
    counts_.add += (products - first_products) * valid.outputs;
    counts_.pad += padding;
    if constexpr (COUNT_ZERO) counts_.zero += products * valid.outputs - padding - nonzero_products_;
    issued_steps_ = {};
    nonzero_products_ = 0;
  }

  __device__ const ThreadCounts& counts() const { return counts_; }

 private:
  const GemmTallyShared<Tile>& shared_;
  ThreadCounts counts_;
  bool accumulators_are_empty_;
  IssuedSteps issued_steps_;
  uint32_t nonzero_products_ = 0;
};

// Adds the counts of all threads of the block to the launch's record: over the lanes of each warp by shuffles, over the
// warps in shared memory, and one atomic addition per counter. Every thread of the block takes part.
template <int THREADS>
__device__ inline void add_block_counts(const ThreadCounts& thread_counts, Counters* record) {
  constexpr int FIELDS = sizeof(Counters) / sizeof(int64_t);
  constexpr int WARPS = THREADS / WARP_SIZE;
  static_assert(THREADS % WARP_SIZE == 0, "shuffles need whole warps");
  __shared__ long long warp_sums[WARPS][FIELDS];

  long long sums[FIELDS] = {thread_counts.mul, thread_counts.add, thread_counts.pad, thread_counts.zero,
                            thread_counts.lane};
  const int lane = threadIdx.x % WARP_SIZE;
#pragma unroll
  for (int field = 0; field < FIELDS; ++field) {
#pragma unroll
    for (int distance = WARP_SIZE / 2; distance > 0; distance /= 2) {
      sums[field] += __shfl_down_sync(0xffffffffu, sums[field], distance);
    }
    if (lane == 0) warp_sums[threadIdx.x / WARP_SIZE][field] = sums[field];
  }
  __syncthreads();

  if (threadIdx.x < FIELDS) {
    unsigned long long block_sum = 0;
#pragma unroll
    for (int warp = 0; warp < WARPS; ++warp) block_sum += warp_sums[warp][threadIdx.x];
    if (block_sum != 0) atomicAdd(reinterpret_cast<unsigned long long*>(record) + threadIdx.x, block_sum);
  }
}

}  // namespace flopcuda::cuda
