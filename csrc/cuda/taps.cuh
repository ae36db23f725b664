// Which inputs the steps of a convolution's reduction stand for, and which of a block's columns have none there.
//
// Bottleneck it removes: integer work in the main loop. A step, a channel and a tap, is the same for all lanes of a
// warp, but has an input for some columns and not for others. A warp looks up the next WARP_SIZE steps that it copies
// at once, one a lane and between two runs of the main loop (StepReader), in tables of the block that have a bit for
// each column, at every coordinate of a tap (WindowTable). The main loop reads an offset and these bits.
#pragma once

#include <cstdint>

#include "cuda/conv_window.cuh"
#include "cuda/params.h"
#include "cuda/split_sums.cuh"
#include "cuda/tiles.h"

namespace flopcuda::cuda {

// A set of a block's columns is so many words. Lane l has columns l, l + WARP_SIZE and so on: bit l of a word each.
template <class Tile>
constexpr int COLUMN_WORDS = Tile::BLOCK_N / WARP_SIZE;

// Where the windows of a block's columns lie, in shared memory.
template <class Tile>
class WindowTable {
 public:
  static constexpr int WORDS = COLUMN_WORDS<Tile>;

  // windows: of the lane's columns, the same in all warps. The table is complete after a barrier.
  __device__ void fill(const ConvParams& params, const Position (&windows)[WORDS]) {
#pragma unroll
    for (int word = 0; word < WORDS; ++word) {
      const Position& window = windows[word];
      const uint32_t existing = vote(window.exists());
      if (threadIdx.x == 0) existing_[word] = existing;
      if (threadIdx.x < WARP_SIZE) windows_[word][lane()] = window;
      tabulate(params.width, window.column, inside_[word].width);
      tabulate(params.height, window.row, inside_[word].height);
      tabulate(params.depth, window.depth, inside_[word].depth);
    }
  }

  // Of a word, the columns that the problem has.
  __device__ uint32_t existing(int word) const { return existing_[word]; }

  // Of a word, the columns that have an input at the lane's own step. Every lane of the warp takes part.
  __device__ uint32_t inside(const ConvParams& params, const ReductionStep& step, int word) const {
    const Position& window = windows_[word][lane()];
    return inside_at(params.width, window.column, step.column, inside_[word].width) &
           inside_at(params.height, window.row, step.row, inside_[word].height) &
           inside_at(params.depth, window.depth, step.depth, inside_[word].depth);
  }

 private:
  static constexpr int TABULATED_TAPS = 256 / WORDS;  // along an axis

  // Columns whose windows have an input at a tap of that number along an axis.
  using AxisTable = uint32_t[TABULATED_TAPS];

  __device__ static int lane() { return threadIdx.x % WARP_SIZE; }

  // A bit of each lane of the warp.
  __device__ static uint32_t vote(bool holds) { return __ballot_sync(0xffffffffu, holds); }

  __device__ static uint32_t vote_inside(const AxisParams& axis, int32_t first_input, int32_t tap) {
    return vote(is_inside(axis, first_input + tap * axis.dilation));
  }

  __device__ static void tabulate(const AxisParams& axis, int32_t first_input, AxisTable& table) {
    const int taps = min(static_cast<int>(axis.kernel_size.divisor), TABULATED_TAPS);
#pragma unroll 1
    for (int tap = threadIdx.x / WARP_SIZE; tap < taps; tap += Tile::WARPS) {
      const uint32_t inside = vote_inside(axis, first_input, tap);
      if (lane() == 0) table[tap] = inside;
    }
  }

  // Along an axis longer than the table, each lane's tap in turn is held against all columns.
  __device__ static uint32_t inside_at(const AxisParams& axis, const int32_t& first_input_in_memory, uint32_t tap,
                                       const AxisTable& table) {
    if (axis.kernel_size.divisor <= TABULATED_TAPS) return table[tap];
    const int32_t first_input = first_input_in_memory;
    uint32_t own = 0;
#pragma unroll 1
    for (int other = 0; other < WARP_SIZE; ++other) {
      const uint32_t inside = vote_inside(axis, first_input, __shfl_sync(0xffffffffu, tap, other));
      if (other == lane()) own = inside;
    }
    return own;
  }

  uint32_t existing_[WORDS];
  Position windows_[WORDS][WARP_SIZE];
  struct {
    AxisTable width, height, depth;
  } inside_[WORDS];
};

// The steps that a warp copies: of each slice, every WARPS-th.
template <class Tile>
class StepReader {
 public:
  static constexpr int WORDS = COLUMN_WORDS<Tile>;
  static constexpr int STEPS = Tile::BLOCK_K / Tile::WARPS;  // of a slice
  static constexpr int SLICES = WARP_SIZE / STEPS;           // whose steps are looked up at once
  static_assert(SLICES >= Tile::STAGES - 1, "all that is copied before the main loop");

  // What a warp copies of a slice. Of any eight of them, equal members begin on different banks.
  struct alignas(STEPS* WORDS < 8 ? 8 : 16) Slice {
    uint32_t missing[WORDS][STEPS];  // the columns without an input at a step
    uint32_t offsets[STEPS];         // of a step: elements from a window's first input on, modulo 2^32
  };

  struct Shared {
    WindowTable<Tile> windows;
    Slice slices[Tile::WARPS * SLICES];
    ReductionPart part;
    uint32_t padded[Tile::THREADS];  // a number of each thread: no register holds it in the main loop
  };

  // part: the block's, of the reduction. Steps may be prepared after a barrier.
  __device__ StepReader(const ReductionPart& part, Shared& shared) : shared_(shared) {
    if (threadIdx.x == 0) shared.part = part;
    shared.padded[threadIdx.x] = 0;
  }

  // Looks steps up if there are none left. Returns of how many slices, but no more than that.
  __device__ int prepare(const ConvParams& params, int at_most) {
    if (slices_left_ == 0) look_up(params, shared_.part);
    const int slices = min(at_most, slices_left_);
    slices_left_ -= slices;
    return slices;
  }

  // Of the next slice.
  __device__ Slice next() { return shared_.slices[next_++]; }

  // Columns without an input, of all steps that the thread looked up: only columns that the problem has.
  __device__ uint32_t padded() const { return shared_.padded[threadIdx.x]; }

  // Of the lane's columns, in each word of a set. Read anew for every slice: no register holds it in the main loop.
  static __device__ uint32_t own_bit() {
    uint32_t bit;
    asm volatile("mov.u32 %0, %%lanemask_eq;" : "=r"(bit));
    return bit;
  }

 private:
  __device__ static int lane() { return threadIdx.x % WARP_SIZE; }
  __device__ static int warp() { return threadIdx.x / WARP_SIZE; }

  // Writes a word of each lane, to eight slices at a time.
  __device__ static void write(uint32_t& place, uint32_t word) {
#pragma unroll
    for (int first = 0; first < SLICES; first += 8) {
      if (lane() / STEPS / 8 == first / 8) place = word;
      __syncwarp();  // or the compiler would write all of them at once
    }
  }

  // Beyond the part, all columns are without an input, and none has padding.
  __device__ void look_up(const ConvParams& params, const ReductionPart part) {
    next_ = warp() * SLICES;
    Slice& slice = shared_.slices[next_ + lane() / STEPS];
    const int in_part = (batches_++ * WARP_SIZE + lane()) * Tile::WARPS + warp();
    const ReductionStep step(params, part.first + in_part);
    __syncwarp();  // all lanes have read the last steps
    write(slice.offsets[lane() % STEPS], step.offset(params));
#pragma unroll 1
    for (int word = 0; word < WORDS; ++word) {
      uint32_t missing = ~shared_.windows.inside(params, step, word);
      if (in_part < part.products) {
        shared_.padded[threadIdx.x] += __popc(missing & shared_.windows.existing(word));
      } else {
        missing = ~0u;
      }
      write(slice.missing[word][lane() % STEPS], missing);
    }
    __syncwarp();
    slices_left_ = SLICES;
  }

  Shared& shared_;
  int next_;  // slice, of all warps'
  // The same in all threads, which the compiler sees.
  int batches_ = 0;      // of steps that were looked up
  int slices_left_ = 0;  // whose steps were looked up, but that were not prepared
};

}  // namespace flopcuda::cuda
