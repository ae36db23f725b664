// The micro-kernel of depthwise convolutions: some rows of one output plane, a vector of each. A vector of the padded
// input is loaded once and multiplied for every output row that it is a tap of. A template as tile_kernel.h is, under
// the same rules.
#pragma once

#include "tile_kernel.h"

namespace flopcuda::cpu {
namespace {

// Counts, in every lane, the products of which neither operand is 0.
template <class Simd>
struct NonzeroProducts : LaneCounts<Simd> {
  using typename LaneCounts<Simd>::Mask;

  // `uses` products of every lane of `values` with weights that are not 0.
  inline void add(const typename Simd::Vector& values, int uses) {
    this->lanes += (values != typename Simd::Vector{}) & (Mask{} + uses);
  }
};

// Where the vectors of a tile's rows go. Beyond `last`, there is no room for whole ones: the first `columns` elements
// are stored.
template <class Simd>
struct RowsOfOutput {
  using Scalar = typename Simd::Scalar;
  using Vector = typename Simd::Vector;

  Scalar* first;
  int64_t stride;
  const Scalar* last;
  int64_t columns;

  inline void store(const Vector& vector, int row) const {
    Scalar* output = first + row * stride;
    if (output <= last) {
      Simd::store(vector, output);
    } else {
      Simd::store_first(vector, columns, output);
    }
  }
};

// Apart from the loops, whose registers it would take: rows of less than a vector, at the end of a plane.
template <class Simd, int kRows>
[[gnu::noinline, gnu::cold]] void store_short_rows(const typename Simd::Vector (&vectors)[kRows],
                                                   const RowsOfOutput<Simd>& output) {
  for (int i = 0; i < kRows; ++i) output.store(vectors[i], i);
}

template <class Simd, int kRows>
inline void store_rows(const typename Simd::Vector (&vectors)[kRows], const RowsOfOutput<Simd>& output) {
  if (output.first + (kRows - 2) * output.stride > output.last) {
    typename Simd::Vector copies[kRows];  // so that the vectors themselves need no address
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) copies[i] = vectors[i];
    return store_short_rows<Simd, kRows>(copies, output);
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows - 1; ++i) Simd::store(vectors[i], output.first + i * output.stride);
  const typename Simd::Vector copy = vectors[kRows - 1];
  output.store(copy, kRows - 1);
}

// One vector of every row after the other, and one column of the kernel's taps at a time: its weights stay in registers
// while the input's rows pass by.
template <class Simd, int kKernelHeight, int kStride, int kRows, bool kCountZero>
void convolve_plane(const PlaneTile<typename Simd::Scalar>& tile, Counters& counters) {
  using Scalar = typename Simd::Scalar;
  using Vector = typename Simd::Vector;
  constexpr int kInputRows = (kRows - 1) * kStride + kKernelHeight;
  PackedTally counts;  // vectors multiplied, vectors set to nothing for their first product, columns of taps
  Tally padding;       // of the columns of such taps
  NonzeroProducts<Simd> nonzero;

  // What those vectors are in products, so many of each that feed an output element.
  const auto count_products = [&](int64_t products) {
    int64_t multiplied = 0, emptied = 0, tap_columns = 0;
    counts.empty_into(multiplied, emptied, tap_columns);
    const int64_t inside = tap_columns * tile.inside, padding_inside = padding * tile.inside;
    counters.mul += multiplied * products;
    counters.add += (multiplied - emptied) * products;
    counters.pad += padding_inside + (multiplied - inside) * products;
    counters.lane += multiplied * Simd::kLanes;
    Tally zero;
    if constexpr (kCountZero) zero += inside * products - padding_inside - nonzero.sum(products);
    counters.zero += zero;
    padding = {};
    nonzero = {};
  };

  // From the right: a vector that is wider than its row writes waste where later ones are still to be written.
  const int64_t last_vector = (tile.columns - 1) / Simd::kLanes;
  const int64_t kernel_width = tile.kernel_width, input_stride = tile.input_stride, output_stride = tile.output_stride;
  const int64_t empty_rows = tile.bias ? 0 : kRows;
  const Vector first = tile.bias ? Simd::broadcast(*tile.bias) : Vector{};
  const Scalar* const last_output = tile.output_end - Simd::kLanes;
  for (int64_t vector = last_vector; vector >= 0; --vector) {
    const PlaneTap* const taps = tile.taps + vector * kernel_width;

    Vector sums[kRows];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) sums[i] = first;
    counts += PackedTally::pack(0, empty_rows, 0);

    for (int64_t tap_x = 0; tap_x < kernel_width; ++tap_x) {
      const Scalar* weight = tile.weight + tap_x;
      const Scalar* input = tile.input + taps[tap_x].first_column;
      Vector weights[kKernelHeight];
#pragma GCC unroll 8
      for (int tap_y = 0; tap_y < kKernelHeight; ++tap_y) {
        weights[tap_y] = Simd::broadcast(weight[tap_y * kernel_width]);
      }
#pragma GCC unroll 20
      for (int y = 0; y < kInputRows; ++y) {
        const Vector values = Simd::load(input + y * input_stride);
        int nonzero_weights = 0;
#pragma GCC unroll 8
        for (int i = 0; i < kRows; ++i) {
          const int tap_y = y - i * kStride;
          if (tap_y < 0 || tap_y >= kKernelHeight) continue;
          sums[i] += values * weights[tap_y];

          counts += PackedTally::pack(1, 0, 0);
          if constexpr (kCountZero) nonzero_weights += weight[tap_y * kernel_width] != 0;
        }
        if constexpr (kCountZero) nonzero.add(values, nonzero_weights);
      }
      counts += PackedTally::pack(0, 0, 1);
      padding += taps[tap_x].padding;
    }

    const int64_t x = vector * Simd::kLanes;
    store_rows<Simd, kRows>(sums, {tile.output + x, output_stride, last_output, tile.columns - x});
    if (vector == last_vector) count_products(tile.columns - x);  // it alone may be wider than its row
  }
  if (last_vector > 0) count_products(Simd::kLanes);
}

template <class Simd, int kKernelHeight, int kStride>
constexpr void add_plane_functions(PlaneFamily<typename Simd::Scalar>& family) {
  auto& functions = family.functions[kKernelHeight / 2 - 1][kStride - 1];
  functions[false][false] = convolve_plane<Simd, kKernelHeight, kStride, 1, false>;
  functions[false][true] = convolve_plane<Simd, kKernelHeight, kStride, kPlaneRows, false>;
  functions[true][false] = convolve_plane<Simd, kKernelHeight, kStride, 1, true>;
  functions[true][true] = convolve_plane<Simd, kKernelHeight, kStride, kPlaneRows, true>;
  if constexpr (kStride > 1) {
    add_plane_functions<Simd, kKernelHeight, kStride - 1>(family);
  } else if constexpr (kKernelHeight > 3) {
    add_plane_functions<Simd, kKernelHeight - 2, kMaxPlaneStride>(family);
  }
}

template <class Simd>
constexpr PlaneFamily<typename Simd::Scalar> make_planes() {
  PlaneFamily<typename Simd::Scalar> family{Simd::kLanes, {}};
  add_plane_functions<Simd, kMaxPlaneKernelHeight, kMaxPlaneStride>(family);
  return family;
}

}  // namespace
}  // namespace flopcuda::cpu
