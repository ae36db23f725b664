// The micro-kernel of depthwise convolutions: some rows of one output plane, a vector of each. A vector of the padded
// input is loaded once and multiplied for every output row that it is a tap of. A template as tile_kernel.h is, under
// the same rules.
#pragma once

#include "tile_kernel.h"

namespace flopcuda::cpu {
namespace {

// Counts, in every lane, the products of which neither operand is 0.
template <class Simd>
struct NonzeroProducts {
  using Mask = decltype(typename Simd::Vector{} != typename Simd::Vector{});

  Mask lanes{};

  // `uses` products of every lane of `values` with weights that are not 0.
  inline void add(const typename Simd::Vector& values, int uses) {
    lanes += (values != typename Simd::Vector{}) & (Mask{} + uses);
  }

  inline int64_t sum(int64_t valid_lanes) const {
    int64_t total = 0;
    for (int64_t i = 0; i < valid_lanes; ++i) total += lanes[i];
    return total;
  }
};

template <class Simd, int kRows>
inline void store_rows(const typename Simd::Vector (&vectors)[kRows], const PlaneTile<typename Simd::Scalar>& tile) {
  for (int i = 0; i < kRows; ++i) {
    typename Simd::Scalar* output = tile.output + i * tile.output_stride;
    if (output + Simd::kLanes <= tile.output_end) {
      Simd::store(vectors[i], output);
    } else {
      __builtin_memcpy(output, &vectors[i], tile.valid_columns * sizeof(typename Simd::Scalar));
    }
  }
}

// One column of the kernel's taps at a time: its weights stay in registers while the input's rows pass by.
template <class Simd, int kKernelHeight, int kStride, int kRows, bool kCountZero>
void convolve_plane(const PlaneTile<typename Simd::Scalar>& tile, Counters& counters) {
  using Vector = typename Simd::Vector;
  constexpr int kInputRows = (kRows - 1) * kStride + kKernelHeight;

  Vector sums[kRows];
  const Vector first = tile.bias ? Simd::broadcast(*tile.bias) : Vector{};
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) sums[i] = first;

  const int64_t products = tile.valid_columns;  // of a vector that feed an output element
  int64_t holding = tile.bias ? products : 0;   // of a row's accumulators, those that hold a value
  Tally mul, add, pad, zero, lane;
  NonzeroProducts<Simd> nonzero;

  for (int64_t tap_x = 0; tap_x < tile.kernel_width; ++tap_x) {
    const typename Simd::Scalar* weight = tile.weight + tap_x;
    const typename Simd::Scalar* input = tile.input + tile.column_offsets[tap_x];
    Vector weights[kKernelHeight];
#pragma GCC unroll 8
    for (int tap_y = 0; tap_y < kKernelHeight; ++tap_y) {
      weights[tap_y] = Simd::broadcast(weight[tap_y * tile.kernel_width]);
    }
    int64_t vectors = 0, inside = 0;  // multiplied, and those of them whose row is one of the image
#pragma GCC unroll 20
    for (int y = 0; y < kInputRows; ++y) {
      const Vector values = Simd::load(input + y * tile.input_stride);
      int nonzero_weights = 0;
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) {
        const int tap_y = y - i * kStride;
        if (tap_y < 0 || tap_y >= kKernelHeight) continue;
        sums[i] += values * weights[tap_y];

        lane += Simd::kLanes;
        mul += products;
        add += tap_y == 0 ? holding : products;  // a row's first tap of the column is the topmost
        vectors += 1;
        inside += tile.rows_inside[y];
        if constexpr (kCountZero) nonzero_weights += weight[tap_y * tile.kernel_width] != 0;
      }
      if constexpr (kCountZero) nonzero.add(values, nonzero_weights);
    }
    holding = products;
    // Multiplied here, once for the column's taps: `inside` is the same for all columns and leaves the loop.
    pad += inside * tile.pad_columns[tap_x] + (vectors - inside) * products;
    if constexpr (kCountZero) zero += inside * (products - tile.pad_columns[tap_x]);
  }
  zero += -nonzero.sum(products);

  store_rows<Simd, kRows>(sums, tile);
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
