// Which rows of an im2col matrix have no input at a tap of their windows, for kernels on tensor cores: of the rows that
// one thread copies, a bit for each. And how many taps of these rows lie in the padding: a tap of a walk is one, or all
// of a width whose taps are channels, of which some may have an input and others none.
//
// The taps of a small kernel are tabulated by the planner, with bits that one instruction tests (TapBits); those of a
// large one, as the gradient of a weight has, are known by their coordinates (TapCoordinates).
#pragma once

#include <cstdint>

#include "cuda/conv_window.cuh"
#include "cuda/params.h"

namespace flopcuda::cuda {

// A bit for each coordinate along an axis at which a window has an input.
__device__ inline uint32_t mark_inside(const AxisParams& axis, int32_t first_input) {
  uint32_t bits = 0;
  for (uint32_t tap = 0; tap < axis.kernel_size.divisor; ++tap) {
    const int32_t coordinate = first_input + static_cast<int32_t>(tap) * axis.dilation;
    bits |= static_cast<uint32_t>(is_inside(axis, coordinate)) << tap;
  }
  return bits;
}

// Those of all axes: a tap has an input if all of its bits are set. Of a width whose taps are channels, a window is a
// column.
__device__ inline uint32_t mark_inside(const ConvParams& params, const Position& window) {
  const AxisParams& gathered = params.gathered_width;
  return mark_inside(params.width, window.column) |
         mark_inside(params.height, window.row) * params.tap_walk.height_first |
         mark_inside(params.depth, window.depth) * params.tap_walk.depth_first |
         mark_inside(gathered, window.column * gathered.stride - gathered.pad) * params.tap_walk.gathered_first;
}

// What is known of the rows at the tap that is copied.
class TapRows {
 public:
  // Those without an input, and those that there are not.
  __device__ uint32_t missing() const { return missing_; }

  // What is still copied of the tap is none of its channels.
  __device__ void miss_all() { missing_ = ~0u; }

 protected:
  __device__ void set_exists(int i, bool exists) { existing_ |= static_cast<uint32_t>(exists) << i; }

  __device__ uint32_t count_existing() const { return __popc(existing_); }
  __device__ uint32_t count_padded() const { return __popc(missing_ & existing_); }

  uint32_t missing_ = 0;

 private:
  uint32_t existing_ = 0;
};

// Whether a tap of a window lies in the image is found once a block, for all taps.
template <int ROWS>
class TapBits : public TapRows {
 public:
  // The first tap is that of all.
  __device__ TapBits(const ConvParams& params, int) : params_(params) {}

  __device__ void set_row(int i, const ConvParams& params, const Position& window, bool exists) {
    inside_[i] = exists ? mark_inside(params, window) : 0;
    set_exists(i, exists);
  }

  // How far the first tap's inputs are from the windows' first, in pixels modulo 2^32.
  __device__ static constexpr uint32_t first_offset() { return 0; }

  // All rows are set, and the first tap is copied.
  __device__ void begin() {
    const uint32_t tap = params_.tap_walk.table[tap_].coordinates;
    missing_ = 0;
#pragma unroll
    for (int i = 0; i < ROWS; ++i) missing_ |= ((tap & ~inside_[i]) != 0) << i;
  }

  // The next tap is copied: how far its inputs are from those of the last, in elements modulo 2^32.
  __device__ uint32_t advance() {
    const uint32_t step = params_.tap_walk.table[tap_++].step;
    begin();
    return step;
  }

  // Of so many products of each row with the tap that is copied, those with the padding. Among taps that are channels,
  // some have an input and others none.
  __device__ uint32_t count_padding(uint32_t products) const {
    const FastDivisor& gathered_taps = params_.gathered_width.kernel_size;
    if (gathered_taps.divisor == 1) return count_padded() * products;
    uint32_t taps = count_existing() * gathered_taps.divisor;
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
      if ((missing_ >> i & 1) == 0) taps -= __popc(inside_[i] & (0u - params_.tap_walk.gathered_first));
    }
    return taps * gathered_taps.divide(products);
  }

 private:
  const ConvParams& params_;
  int tap_ = 0;
  uint32_t inside_[ROWS];
};

// Whether a tap lies in the image is found whenever it is copied.
template <int ROWS>
class TapCoordinates : public TapRows {
 public:
  __device__ TapCoordinates(const ConvParams& params, int first_tap) : params_(params) {
    const ReductionStep first(params, first_tap);
    column_ = first.column;
    row_ = first.row;
    tap_ = {static_cast<int32_t>(first.depth) * params.depth.dilation,
            static_cast<int32_t>(first.row) * params.height.dilation,
            static_cast<int32_t>(first.column) * params.width.dilation};
  }

  __device__ void set_row(int i, const ConvParams&, const Position& window, bool exists) {
    windows_[i] = exists ? window : Position::nowhere();
    set_exists(i, exists);
  }

  __device__ uint32_t first_offset() const { return static_cast<uint32_t>(tap_.offset(params_)); }

  __device__ void begin() {
    missing_ = 0;
#pragma unroll
    for (int i = 0; i < ROWS; ++i) missing_ |= static_cast<uint32_t>(!windows_[i].has_input_at(params_, tap_)) << i;
  }

  __device__ uint32_t advance() {
    const TapWalk& walk = params_.tap_walk;
    uint32_t step = walk.width_step;
    tap_.column += params_.width.dilation;
    if (++column_ == params_.width.kernel_size.divisor) {
      step += walk.height_step;
      tap_.row += params_.height.dilation;
      tap_.column = 0;
      column_ = 0;
      if (++row_ == params_.height.kernel_size.divisor) {
        step += walk.depth_step;
        tap_.depth += params_.depth.dilation;
        tap_.row = 0;
        row_ = 0;
      }
    }
    begin();
    return step;
  }

  __device__ uint32_t count_padding(uint32_t products) const { return count_padded() * products; }

 private:
  const ConvParams& params_;
  Position windows_[ROWS];
  Position tap_;
  uint32_t column_, row_;
};

}  // namespace flopcuda::cuda
