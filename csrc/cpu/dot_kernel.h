// The micro-kernel of few rows: dot products of rows and columns that both lie along the depth in memory, so that
// nothing is packed; and the counters incremented beside them. A template as tile_kernel.h is, under the same rules.
#pragma once

#include "line_kernel.h"
#include "micro_kernel.h"
#include "tally.h"
#include "widen.h"

namespace flopcuda::cpu {
namespace {

// A partial sum in every lane of the products of kRows rows and kColumns columns.
template <class Simd, int kRows, int kColumns>
struct PartialSums {
  using Vector = typename Simd::Vector;

  Vector sums[kRows][kColumns] = {};

  // Multiplies a vector of every row by that of every column. `load` gives the vector of an operand's stream.
  template <class Tile, class Load>
  inline void multiply_add(const Tile& tile, int64_t k, const Load& load) {
    Vector columns[kColumns];
#pragma GCC unroll 4
    for (int j = 0; j < kColumns; ++j) columns[j] = load(tile.columns + j * tile.column_stride + k);
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
      const Vector row = load(tile.rows + i * tile.row_stride + k);
#pragma GCC unroll 4
      for (int j = 0; j < kColumns; ++j) sums[i][j] += row * columns[j];
    }
  }
};

// In every lane, the products of which neither operand is 0.
template <class Simd, int kRows, int kColumns>
struct NonzeroDots : LaneCounts<Simd> {
  using typename LaneCounts<Simd>::Mask;

  // Those of a vector of every row with that of every column.
  template <class Tile, class Load>
  inline void add(const Tile& tile, int64_t k, const Load& load) {
    Mask minus_rows{};
    for (int i = 0; i < kRows; ++i) minus_rows += this->minus_nonzero(load(tile.rows + i * tile.row_stride + k));
    for (int j = 0; j < kColumns; ++j) {
      this->lanes -= minus_rows & this->minus_nonzero(load(tile.columns + j * tile.column_stride + k));
    }
  }
};

template <class Simd, class Weight, int kRows, int kColumns, bool kCountZero>
void multiply_dots(const DotTile<typename Simd::Scalar, Weight>& tile, Counters& counters) {
  constexpr int64_t kLanes = Simd::kLanes, kOutputs = kRows * kColumns;
  PartialSums<Simd, kRows, kColumns> partial;
  NonzeroDots<Simd, kRows, kColumns> nonzero;
  Tally mul, add, zero, lane;
  int64_t holding = 0;  // of the partial sums, those that hold a value

  // The products of the `count` elements from k on, whose vectors `load` gives.
  const auto multiply = [&](int64_t k, int64_t count, const auto& load) {
    partial.multiply_add(tile, k, load);
    lane += kOutputs * kLanes;
    mul += kOutputs * count;
    add += holding < count ? kOutputs * holding : kOutputs * count;
    holding = holding < count ? count : holding;
    if constexpr (kCountZero) nonzero.add(tile, k, load);
  };
  int64_t k = 0;
  for (; k + kLanes <= tile.depth; k += kLanes) {
    multiply(k, kLanes, [](const auto* source) { return load_widened<Simd>(source); });
  }
  if (const int64_t rest = tile.depth - k; rest > 0) {
    multiply(k, rest, [rest](const auto* source) { return load_first<Simd>(source, rest); });
  }

  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kColumns; ++j) {
      typename Simd::Scalar sum = partial.sums[i][j][0];
      for (int64_t k = 1; k < holding; ++k) sum += partial.sums[i][j][k], add += 1;
      if (tile.bias) sum += tile.bias[j], add += 1;
      tile.output[i * tile.output_stride + j] = sum;
    }
  }
  if constexpr (kCountZero) zero += mul - nonzero.sum(kLanes);
  counters.mul += mul;
  counters.add += add;
  counters.zero += zero;
  counters.lane += lane;
}

template <class Simd, class Weight, int kRows, int kColumns>
constexpr void add_dots(DotFamily<typename Simd::Scalar, Weight>& family) {
  family.functions[false][kRows - 1][kColumns - 1] = multiply_dots<Simd, Weight, kRows, kColumns, false>;
  family.functions[true][kRows - 1][kColumns - 1] = multiply_dots<Simd, Weight, kRows, kColumns, true>;
  if constexpr (kColumns > 1) {
    add_dots<Simd, Weight, kRows, kColumns - 1>(family);
  } else if constexpr (kRows > 1) {
    add_dots<Simd, Weight, kRows - 1, kMaxDotColumns>(family);
  }
}

template <class Simd, class Weight = typename Simd::Scalar>
constexpr DotFamily<typename Simd::Scalar, Weight> make_dots() {
  DotFamily<typename Simd::Scalar, Weight> family{};
  add_dots<Simd, Weight, kMaxDotRows, kMaxDotColumns>(family);
  return family;
}

template <int kBytes>
constexpr DotKernels make_dot_kernels() {
  return {make_dots<Simd<float, kBytes>>(),           make_dots<Simd<double, kBytes>>(),
          make_dots<Simd<float, kBytes>, BFloat16>(), make_dots<Simd<float, kBytes>, Float16>(),
          make_line_families<float, kBytes>(),        make_line_families<double, kBytes>()};
}

}  // namespace
}  // namespace flopcuda::cpu
