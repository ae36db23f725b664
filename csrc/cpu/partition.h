// Integer division rounded up, ranges cut into parts of nearly equal size, and the width of panels.
#pragma once

#include <cstdint>

namespace flopcuda::cpu {

constexpr int64_t ceil_div(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

// `parts` consecutive parts of `size` elements: the first size % parts of them have one element more than the others.
struct Partition {
  int64_t size;
  int64_t parts;

  int64_t begin(int64_t part) const {
    const int64_t longer = size % parts;
    return part * (size / parts) + (part < longer ? part : longer);
  }
  bool is_even() const { return size % parts == 0; }
  int64_t length(int64_t part) const { return size / parts + (part < size % parts ? 1 : 0); }
};

// The size of the first of as few parts as have no more than `most` elements each, nearly equal in size.
constexpr int64_t largest_part(int64_t size, int64_t most) { return ceil_div(size, ceil_div(size, most)); }

// How wide a panel may be: a multiple of `step` elements.
struct PanelWidth {
  int64_t step, max;

  int64_t rounded(int64_t elements) const { return ceil_div(elements, step) * step; }
};

}  // namespace flopcuda::cpu
