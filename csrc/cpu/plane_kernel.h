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

template <class Simd, int kRows>
inline void store_rows(const typename Simd::Vector (&vectors)[kRows], const PlaneTile<typename Simd::Scalar>& tile,
                       int64_t x, int64_t valid_columns) {
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    typename Simd::Scalar* output = tile.output + i * tile.output_stride + x;
    if (output + Simd::kLanes <= tile.output_end) {
      Simd::store(vectors[i], output);
    } else {
      const typename Simd::Vector last = vectors[i];  // a copy, so that the others need no address
      __builtin_memcpy(output, &last, valid_columns * sizeof(typename Simd::Scalar));
    }
  }
}

// One vector of every row after the other, and one column of the kernel's taps at a time: its weights stay in registers
// while the input's rows pass by.
template <class Simd, int kKernelHeight, int kStride, int kRows, bool kCountZero>
void convolve_plane(const PlaneTile<typename Simd::Scalar>& tile, Counters& counters) {
  using Vector = typename Simd::Vector;
  constexpr int kInputRows = (kRows - 1) * kStride + kKernelHeight;
  Tally mul, add, pad, zero, lane;
  // Of vectors: multiplied, added to a value, multiplied in a row of the image; and columns beside it, tap by tap.
  Tally multiplied, added, inside, padded;
  NonzeroProducts<Simd> nonzero;

  // What those vectors are in products, so many of each that feed an output element.
  const auto count_products = [&](int64_t products) {
    mul += multiplied * products;
    add += added * products;
    lane += multiplied * Simd::kLanes;
    const int64_t pad_inside = tile.inside * padded;
    pad += pad_inside + (multiplied - inside) * products;
    if constexpr (kCountZero) zero += inside * products - pad_inside - nonzero.sum(products);
    multiplied = added = inside = padded = {};
    nonzero = {};
  };

  // From the right: a vector that is wider than its row writes waste where later ones are still to be written.
  const int64_t last_vector = (tile.columns - 1) / Simd::kLanes;
  for (int64_t vector = last_vector; vector >= 0; --vector) {
    const int64_t x = vector * Simd::kLanes;
    const int64_t left = tile.columns - x;
    const int64_t products = left < Simd::kLanes ? left : Simd::kLanes;
    const int32_t* pad_columns = tile.pad_columns + vector * tile.kernel_width;
    int64_t holding = tile.bias ? 1 : 0;  // 1 if a row's accumulators hold a value

    Vector sums[kRows];
    const Vector first = tile.bias ? Simd::broadcast(*tile.bias) : Vector{};
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) sums[i] = first;

    for (int64_t tap_x = 0; tap_x < tile.kernel_width; ++tap_x) {
      const typename Simd::Scalar* weight = tile.weight + tap_x;
      const typename Simd::Scalar* input = tile.input + x + tile.column_offsets[tap_x];
      Vector weights[kKernelHeight];
#pragma GCC unroll 8
      for (int tap_y = 0; tap_y < kKernelHeight; ++tap_y) {
        weights[tap_y] = Simd::broadcast(weight[tap_y * tile.kernel_width]);
      }
#pragma GCC unroll 20
      for (int y = 0; y < kInputRows; ++y) {
        const Vector values = Simd::load(input + y * tile.input_stride);
        int nonzero_weights = 0;
#pragma GCC unroll 8
        for (int i = 0; i < kRows; ++i) {
          const int tap_y = y - i * kStride;
          if (tap_y < 0 || tap_y >= kKernelHeight) continue;
          sums[i] += values * weights[tap_y];

          multiplied += 1;
          added += tap_y == 0 ? holding : 1;  // a row's first tap of the column is the topmost
          if constexpr (kCountZero) nonzero_weights += weight[tap_y * tile.kernel_width] != 0;
        }
        if constexpr (kCountZero) nonzero.add(values, nonzero_weights);
      }
      holding = 1;
      inside += tile.inside;
      padded += pad_columns[tap_x];
    }
    store_rows<Simd, kRows>(sums, tile, x, products);
    // The last vector alone may be wider than its row: all others are counted together.
    if (products < Simd::kLanes || vector == 0) count_products(products);
  }
  counters.mul += mul;
  counters.add += add;
  counters.pad += pad;
  counters.zero += zero;
  counters.lane += lane;
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
