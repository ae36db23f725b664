// Which input the steps of a convolution's reduction stand for, for the columns of one lane.
//
// A step is a channel and a tap. The integer work that this costs is taken out of the main loop where the kernel has
// few taps (TapTable), and done in it where it has many (TapDecoder), as in the gradient of a weight.
#pragma once

#include <cstdint>

#include "cuda/conv_window.cuh"
#include "cuda/counting.cuh"
#include "cuda/params.h"
#include "cuda/split_sums.cuh"
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
  // Whether column j has no input; any number but 0 says that it has none.
  __device__ uint32_t is_missing(int column) const { return marks & flag(column); }
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

 private:
  // Of the tap n counted along an axis, of which so many whole kernels lie before it.
  __device__ static int coordinate(const AxisParams& axis, int n, int whole_kernels) {
    return (n - whole_kernels * static_cast<int>(axis.kernel_size.divisor)) * axis.dilation;
  }
};

// Every tap of the kernel is decoded and held against the windows once a block. A warp copies every WARPS-th step.
//
// A part of the reduction is whole channels. Its offsets go as far as those of all channels, so that what lies beyond
// it is known by the launch's own constant.
template <class Tile, int COLUMNS>
class TapTable {
 public:
  // Products of the reduction that no part divides.
  __device__ static int unit(const ConvParams& params) { return params.taps; }

  // By how many elements a part's offsets are too large.
  __device__ static int64_t offset_ahead(const ConvParams& params, const ReductionPart& part) {
    if constexpr (!Tile::IS_SPLIT) return 0;
    return (params.reduction - part.first - part.products) / params.taps * params.input_channel_stride;
  }

  struct Shared {
    uint32_t offsets[MAX_TABULATED_TAPS];
    uint32_t marks[MAX_TABULATED_TAPS][WARP_SIZE];  // by lane: all warps have the same columns
  };

  // The table is complete after a barrier.
  __device__ TapTable(const ConvParams& params, const Windows<COLUMNS>& windows, int first_step,
                      const ReductionPart& part, Shared& shared)
      : params_(params),
        shared_(shared),
        tap_(first_step % params.taps),
        channel_offset_((part.first + first_step) / params.taps * static_cast<uint32_t>(params.input_channel_stride) +
                        static_cast<uint32_t>(offset_ahead(params, part))) {
    for (int tap = threadIdx.x / WARP_SIZE; tap < params.taps; tap += Tile::WARPS) {
      const DecodedTap decoded(params, tap);
      if (lane() == 0) shared.offsets[tap] = static_cast<uint32_t>(decoded.position.offset(params));
      shared.marks[tap][lane()] = windows.mark(params, decoded.position);
    }
  }

  // What the warp's next step stands for; nothing, beyond the reduction. The planner sees to it that no offset wraps.
  __device__ Tap next() {
    const bool exists = channel_offset_ < static_cast<uint32_t>(params_.group_input_extent);
    const Tap tap{channel_offset_ + shared_.offsets[tap_], exists ? shared_.marks[tap_][lane()] : Tap::NOTHING};
    tap_ += params_.step_taps;
    channel_offset_ += params_.step_channel_offset;
    if (tap_ >= params_.taps) {
      tap_ -= params_.taps;
      channel_offset_ += static_cast<uint32_t>(params_.input_channel_stride);
    }
    return tap;
  }

 private:
  __device__ static int lane() { return threadIdx.x % WARP_SIZE; }

  const ConvParams& params_;
  const Shared& shared_;
  int tap_;
  uint32_t channel_offset_;
};

// Decodes a tap, and holds it against the windows, whenever it is copied.
template <class Tile, int COLUMNS>
class TapDecoder {
 public:
  struct Shared {};

  // As above.
  __device__ static int unit(const ConvParams&) { return Tile::BLOCK_K; }
  __device__ static int64_t offset_ahead(const ConvParams&, const ReductionPart&) { return 0; }

  __device__ TapDecoder(const ConvParams& params, const Windows<COLUMNS>& windows, int first_step,
                        const ReductionPart& part, Shared&)
      : params_(params), windows_(windows), step_(part.first + first_step), end_(part.first + part.products) {}

  __device__ Tap next() {
    const DecodedTap decoded(params_, step_);
    const int64_t offset = decoded.channel * params_.input_channel_stride + decoded.position.offset(params_);
    const Tap tap{static_cast<uint32_t>(offset),
                  step_ < end_ ? windows_.mark(params_, decoded.position) : Tap::NOTHING};
    step_ += Tile::WARPS;
    return tap;
  }

 private:
  const ConvParams& params_;
  Windows<COLUMNS> windows_;
  int step_;
  int end_;  // of the part
};

}  // namespace flopcuda::cuda
