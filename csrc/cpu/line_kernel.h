// The micro-kernel of few outputs: dot products along the lines of a kernel that is a plane itself, each with several
// columns of the input, of which an element is in one line after the other; and the counters incremented beside them. A
// template as tile_kernel.h is, under the same rules.
#pragma once

#include "micro_kernel.h"
#include "simd.h"
#include "tally.h"

namespace flopcuda::cpu {
namespace {

template <class Simd, int kColumns, bool kCountZero>
void multiply_lines(const LineTile<typename Simd::Scalar>& tile, Counters& counters) {
  using Scalar = typename Simd::Scalar;
  using Vector = typename Simd::Vector;
  using Mask = typename LaneCounts<Simd>::Mask;
  constexpr int64_t kLanes = Simd::kLanes;
  const int64_t rest = tile.depth % kLanes, whole = tile.depth - rest;
  const Mask rest_lanes = LaneCounts<Simd>::first_lanes(rest);

  Vector sums[kColumns] = {};  // a partial sum in every lane
  LaneCounts<Simd> nonzero;
  Tally mul, add, pad, zero, lane;
  int64_t holding = 0;  // of the partial sums of a column, those that hold a value

  for (int64_t i = 0; i < tile.line_count; ++i) {
    const Scalar* const row = tile.row + tile.lines[i].row;
    const Scalar* columns[kColumns];
#pragma GCC unroll 9
    for (int j = 0; j < kColumns; ++j) columns[j] = tile.columns + tile.lines[i].columns + tile.column_offsets[j];

    // The products of the `count` elements from k on, of whose columns `keep` leaves those.
    const auto multiply = [&](int64_t k, int64_t count, const auto& keep) {
      const Vector row_vector = Simd::load(row + k);
#pragma GCC unroll 9
      for (int j = 0; j < kColumns; ++j) {
        const Vector column = keep(Simd::load(columns[j] + k));
        Simd::multiply_add(sums[j], row_vector, column);
        if constexpr (kCountZero) {
          nonzero.lanes -= LaneCounts<Simd>::minus_nonzero(row_vector) & LaneCounts<Simd>::minus_nonzero(column);
        }
      }
      lane += kColumns * kLanes;
      mul += kColumns * count;
      add += kColumns * (holding < count ? holding : count);
      holding = holding < count ? count : holding;
    };
    for (int64_t k = 0; k < whole; k += kLanes) multiply(k, kLanes, [](const Vector& column) { return column; });
    if (rest > 0) {
      multiply(whole, rest, [&rest_lanes](const Vector& column) {
        return reinterpret_cast<Vector>(reinterpret_cast<Mask>(column) & rest_lanes);
      });
    }
    pad += tile.lines[i].padding;
  }

  for (int j = 0; j < kColumns; ++j) {
    Scalar sum = sums[j][0];
    for (int64_t k = 1; k < holding; ++k) sum += sums[j][k], add += 1;
    if (tile.bias) sum += *tile.bias, add += 1;
    tile.output[j] = sum;
  }
  if constexpr (kCountZero) zero += mul - pad - nonzero.sum(kLanes);
  counters.mul += mul;
  counters.add += add;
  counters.pad += pad;
  counters.zero += zero;
  counters.lane += lane;
}

template <class Simd, int kColumns>
constexpr void add_lines(LineFamily<typename Simd::Scalar>& family) {
  family.functions[false][kColumns - 1] = multiply_lines<Simd, kColumns, false>;
  family.functions[true][kColumns - 1] = multiply_lines<Simd, kColumns, true>;
  if constexpr (kColumns > 1) add_lines<Simd, kColumns - 1>(family);
}

template <class Simd>
constexpr LineFamily<typename Simd::Scalar> make_lines() {
  LineFamily<typename Simd::Scalar> family{Simd::kLanes, {}};
  add_lines<Simd, kMaxLineColumns>(family);
  return family;
}

// By vectors of kBytes and, of short lines, of half of that.
template <class Scalar, int kBytes>
constexpr LineFamilies<Scalar> make_line_families() {
  return {make_lines<Simd<Scalar, kBytes>>(), make_lines<Simd<Scalar, kBytes / 2>>()};
}

}  // namespace
}  // namespace flopcuda::cpu
