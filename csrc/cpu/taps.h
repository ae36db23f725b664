// Which outputs have a given tap of the kernel inside the image; for the others it lies in the zero padding.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../common/problem.h"
#include "partition.h"

namespace flopcuda::cpu {

// Where an output's tap lies; outside [0, in_size) is padding.
inline int64_t tap_position(const Axis& axis, int64_t output, int64_t tap) {
  return output * axis.stride - axis.pad + tap * axis.dilation;
}

// A half-open range; empty if end == begin.
struct Range {
  int64_t begin, end;

  int64_t length() const { return end - begin; }
  bool contains(int64_t i) const { return begin <= i && i < end; }
};

inline Range intersect(const Range& a, const Range& b) {
  const int64_t begin = std::max(a.begin, b.begin);
  return {begin, std::max(begin, std::min(a.end, b.end))};
}

// The outputs for which a tap lies inside the image.
inline Range outputs_inside(const Axis& axis, int64_t tap) {
  const int64_t first_position = tap_position(axis, 0, tap);
  const int64_t begin = first_position >= 0 ? 0 : ceil_div(-first_position, axis.stride);
  const int64_t end = first_position >= axis.in_size ? 0 : ceil_div(axis.in_size - first_position, axis.stride);
  return intersect({begin, std::max(begin, end)}, {0, axis.out_size});
}

// outputs_inside for every tap.
inline std::vector<Range> outputs_inside(const Axis& axis) {
  std::vector<Range> ranges;
  for (int64_t tap = 0; tap < axis.kernel_size; ++tap) ranges.push_back(outputs_inside(axis, tap));
  return ranges;
}

// Where taps of some outputs of a row lie in the padding.
enum class Padding {
  kNone,
  kBesideRows,  // of the image, in all of which this is the same
  kAnywhere,
};

// The outputs of which no tap lies in the padding.
struct Interior {
  Range slices, rows, columns;

  explicit Interior(const ConvProblem& p) : slices(along(p.depth)), rows(along(p.height)), columns(along(p.width)) {}

  Padding padding(int64_t z, int64_t y, const Range& x) const {
    if (!slices.contains(z) || !rows.contains(y)) return Padding::kAnywhere;
    return intersect(columns, x).length() == x.length() ? Padding::kNone : Padding::kBesideRows;
  }

 private:
  static Range along(const Axis& axis) {
    return intersect(outputs_inside(axis, 0), outputs_inside(axis, axis.kernel_size - 1));
  }
};

// Whether it is one that a convolution of fewer dimensions lacks, or is computed as if it were.
inline bool is_flat(const Axis& axis) {
  return axis.in_size == 1 && axis.out_size == 1 && axis.kernel_size == 1 && axis.pad == 0;
}

// Taps of a kernel in one channel.
inline int64_t kernel_size(const ConvProblem& p) {
  return p.depth.kernel_size * p.height.kernel_size * p.width.kernel_size;
}

// Products of one output.
inline int64_t reduction_length(const ConvProblem& p) { return p.in_channels / p.groups * kernel_size(p); }

// Elements of one channel of an output image.
inline int64_t output_size(const ConvProblem& p) { return p.depth.out_size * p.height.out_size * p.width.out_size; }

// Parts of an image, one for each remainder of its positions modulo the strides.
inline int64_t phase_count(const ConvProblem& p) { return p.height.stride * p.width.stride; }

// Elements of one channel of an input image.
inline int64_t channel_size(const ConvProblem& p) { return p.depth.in_size * p.height.in_size * p.width.in_size; }

// The first element of a row of an image's first channel.
inline int64_t input_row(const ConvProblem& p, int64_t image, int64_t z, int64_t y) {
  return image * p.in_channels * channel_size(p) + (z * p.height.in_size + y) * p.width.in_size;
}

}  // namespace flopcuda::cpu
