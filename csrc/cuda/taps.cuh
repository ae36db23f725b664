// Which input the steps of a convolution's reduction stand for, for the columns of one lane.
//
// A step is a channel and a tap. The integer work that this costs is taken out of the main loop where the kernel has
// few taps (TapTable), and done in it where it has many (TapDecoder), as in the gradient of a weight.
#pragma once

#include <cstdint>

#include "cuda/conv_window.cuh"
#include "cuda/counting.cuh"
#include "cuda/params.h"
#include "cuda/tiles.h"

namespace flopcuda::cuda {

// A step, for COLUMNS columns of a lane.
struct Tap {
  uint32_t offset;  // elements from a window's first input on, modulo 2^32
  // The low bits say how many of these columns are the problem's and have the tap in the padding, as the tally takes
  // it; flag j above them is set if column j has no input there.
  uint32_t marks;

  static constexpr uint32_t NOTHING = 0xfu << PADDING_COUNT_BITS;

  __device__ static uint32_t flag(int column) { return 1u << (PADDING_COUNT_BITS + column); }
};

// Where the windows of a lane's columns lie.
template <int COLUMNS>
struct Windows {
  static_assert(PADDING_COUNT_BITS + COLUMNS <= 32, "a flag for each column");

  Position positions[COLUMNS];

  __device__ uint32_t mark(const ConvParams& params, const Position& tap) const {
    uint32_t marks = 0;
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) {
      if (positions[j].has_input_at(params, tap)) continue;
      marks += positions[j].exists() ? 1 : 0;
      marks |= Tap::flag(j);
    }
    return marks;
  }
};

// Decodes a step with the divisors of the launch.
struct DecodedTap {
  int32_t channel;
  Position position;

  // index: of the tap among those of all channels.
  __device__ DecodedTap(const ConvParams& params, int32_t index) {
    const int rows = params.width.kernel_size.divide(index);  // whole kernel rows before it, in all channels and depths
    const int depths = params.height.kernel_size.divide(rows);
    channel = params.depth.kernel_size.divide(depths);
    position = {coordinate(params.depth, depths, channel), coordinate(params.height, rows, depths),
                coordinate(params.width, index, rows)};
  }

  // Elements from a window's first input on, modulo 2^32.
  __device__ uint32_t offset(const ConvParams& params) const {
    return static_cast<uint32_t>(channel * params.input_channel_stride + position.offset(params));
  }

 private:
  // Of the tap n counted along an axis, of which so many whole kernels lie before it.
  __device__ static int coordinate(const AxisParams& axis, int n, int whole_kernels) {
    return (n - whole_kernels * static_cast<int>(axis.kernel_size.divisor)) * axis.dilation;
  }
};

// How a warp goes on from a tap to that of its next step.
struct alignas(8) NextTap {
  uint32_t step;  // elements, modulo 2^32
  uint32_t row;   // that tap's in the table, in bytes from the first one
};

// Every tap of the kernel is decoded and held against the windows once a block. A warp copies every WARPS-th step: how
// it goes on from one to the next depends on the tap alone.
template <class Tile, int COLUMNS>
class TapTable {
  struct Row {
    uint32_t marks[WARP_SIZE];  // by lane: all warps have the same columns
    NextTap next;
  };
  static constexpr uint32_t ROW_BYTES = sizeof(Row);

 public:
  struct Shared {
    Row rows[MAX_TABULATED_TAPS];
  };

  // first_step: of the reduction, that the warp copies. The table is complete after a barrier.
  __device__ TapTable(const ConvParams& params, const Windows<COLUMNS>& windows, int first_step, Shared& shared)
      : shared_(shared) {
    const DecodedTap first(params, first_step);
    offset_ = first.offset(params);
    row_ = (first_step - first.channel * params.taps) * ROW_BYTES;
    const int lane = threadIdx.x % WARP_SIZE;
    for (int index = threadIdx.x / WARP_SIZE; index < params.taps; index += Tile::WARPS) {
      const DecodedTap tap(params, index), next(params, index + Tile::WARPS);
      Row& row = shared.rows[index];
      row.marks[lane] = windows.mark(params, tap.position);
      const uint32_t next_row = index + Tile::WARPS - next.channel * params.taps;
      if (lane == 0) row.next = {next.offset(params) - tap.offset(params), next_row * ROW_BYTES};
    }
  }

  // What the warp's next step stands for.
  __device__ Tap next() {
    const Row& row = *reinterpret_cast<const Row*>(reinterpret_cast<const char*>(shared_.rows) + row_);
    const Tap tap{offset_, row.marks[threadIdx.x % WARP_SIZE]};
    const NextTap next = row.next;
    offset_ += next.step;
    row_ = next.row;
    return tap;
  }

 private:
  const Shared& shared_;
  uint32_t offset_;
  uint32_t row_;  // bytes
};

// Decodes a tap, and holds it against the windows, whenever it is copied.
template <class Tile, int COLUMNS>
class TapDecoder {
 public:
  struct Shared {};

  __device__ TapDecoder(const ConvParams& params, const Windows<COLUMNS>& windows, int first_step, Shared&)
      : params_(params), windows_(windows), step_(first_step) {}

  __device__ Tap next() {
    const DecodedTap decoded(params_, step_);
    step_ += Tile::WARPS;
    return {decoded.offset(params_), windows_.mark(params_, decoded.position)};
  }

 private:
  const ConvParams& params_;
  Windows<COLUMNS> windows_;
  int step_;
};

}  // namespace flopcuda::cuda
