// The counting contract: the record that one launch of a counted kernel fills.
//
// A launch computes P output elements, each a sum of R products, with or without a bias. Whatever the order of
// summation (tiles, split-K, trees), n products take n - 1 additions, so a correct dense launch shows mul = P * R and
// add = P * (R - 1), or P * R with a bias. Every field is incremented in the loops that issue the multiply-adds, under
// the conditions that guard them; nothing here may be computed from the problem's shape.
#pragma once

#include <cstdint>

namespace flopcuda {

struct Counters {
  int64_t mul = 0;   // multiplications that feed an output element, products with a zero-padding tap included
  int64_t add = 0;   // additions onto an accumulator that already holds a product or a bias, plus bias additions
  int64_t pad = 0;   // those of mul whose input tap lies in the zero padding
  int64_t zero = 0;  // those of mul, padding aside, with an operand equal to 0; only filled when asked for
  int64_t lane = 0;  // multiply lanes the device executed, tile-edge waste included: mul / lane is the tile efficiency

  Counters& operator+=(const Counters& other) {
    mul += other.mul;
    add += other.add;
    pad += other.pad;
    zero += other.zero;
    lane += other.lane;
    return *this;
  }
};

}  // namespace flopcuda
