// Which outputs have a given tap of the kernel inside the image; for the others it lies in the zero padding.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../common/problem.h"
#include "partition.h"

namespace flopcuda::cpu {

// One dimension of a convolution.
struct Axis {
  int64_t in_size, out_size, kernel_size, stride, pad, dilation;

  // Where output o's tap lies; outside [0, in_size) is padding.
  int64_t tap_position(int64_t output, int64_t tap) const { return output * stride - pad + tap * dilation; }
};

inline Axis vertical_axis(const Conv2dProblem& p) {
  return {p.in_height, p.out_height, p.kernel_height, p.stride_height, p.pad_top, p.dilation_height};
}

inline Axis horizontal_axis(const Conv2dProblem& p) {
  return {p.in_width, p.out_width, p.kernel_width, p.stride_width, p.pad_left, p.dilation_width};
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
  const int64_t first_position = axis.tap_position(0, tap);
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

}  // namespace flopcuda::cpu
