// The micro-kernel: one register tile, `depth` rank-1 updates, and the counters incremented beside them. A template
// over GCC/Clang vectors; each micro_kernel_*.cpp instantiates it for those of its instruction set.
//
// Everything is in an unnamed namespace and nothing of the standard library is used: an inline function with external
// linkage, compiled here with AVX-512, could be the copy that the linker keeps for the whole program.
#pragma once

#include "micro_kernel.h"
#include "simd.h"
#include "tally.h"

namespace flopcuda::cpu {
namespace {

// The accumulators of a tile. Every loop over them is unrolled, so that they are registers.
template <class Simd, int kRows, int kColumnVectors>
struct Accumulators {
  using Scalar = typename Simd::Scalar;
  using Vector = typename Simd::Vector;
  static constexpr int kLanes = Simd::kLanes;

  Vector vectors[kRows][kColumnVectors];

  // Sets the accumulator of each row i and column vector j to first_value(i, j).
  template <class FirstValue>
  inline void set(const FirstValue& first_value) {
#pragma GCC unroll 14
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < kColumnVectors; ++j) vectors[i][j] = first_value(i, j);
    }
  }

  inline void start(const Tile<Scalar>& tile) {
    switch (tile.start) {
      case Start::kRowBias:
        return set([&](int i, int) { return Simd::broadcast(tile.bias[i]); });
      case Start::kColumnBias:
        return set([&](int, int j) { return Simd::load(tile.bias + j * kLanes); });
      case Start::kOutput:  // added at the end, when it has come from memory
      case Start::kNothing:
        break;
    }
    set([](int, int) { return Vector{}; });
  }

  // The rank-1 update: multiplies every row by every column and adds the products. columns(j): where vector j begins.
  template <class Columns>
  inline void multiply_add(const Scalar* rows, const Columns& columns) {
    Vector column_vectors[kColumnVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kColumnVectors; ++j) column_vectors[j] = Simd::load(columns(j));
#pragma GCC unroll 14
    for (int i = 0; i < kRows; ++i) {
      const Vector row = Simd::broadcast(rows[i]);
#pragma GCC unroll 8
      for (int j = 0; j < kColumnVectors; ++j) vectors[i][j] += row * column_vectors[j];
    }
  }

  // Asks for the output's cache lines behind this tile, where the next panel of columns ends: a tile may be done before
  // its own come from memory.
  inline void prefetch(const Tile<Scalar>& tile) const {
    constexpr int kColumns = kColumnVectors * kLanes, kLine = 64 / sizeof(Scalar);
#pragma GCC unroll 14
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
      for (int end = kColumns; end > 0; end -= kLine) {
        __builtin_prefetch(tile.output + i * tile.output_stride + kColumns + end - 1, 1);
      }
    }
  }

  // Adds the partial sums of earlier depth blocks.
  inline void add_output(const Tile<Scalar>& tile) {
#pragma GCC unroll 14
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < kColumnVectors; ++j) {
        vectors[i][j] += Simd::load(tile.output + i * tile.output_stride + j * kLanes);
      }
    }
  }

  inline void store(const Tile<Scalar>& tile) const {
#pragma GCC unroll 14
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < kColumnVectors; ++j) {
        Simd::store(vectors[i][j], tile.output + i * tile.output_stride + j * kLanes);
      }
    }
  }
};

// kRowStride: elements from one update's rows of the product to the next one's.
template <class Simd, int kRows, int kColumnVectors, int kRowStride, Vectors kVectors, bool kCountZero>
void multiply_tile(const Tile<typename Simd::Scalar>& tile, Counters& counters) {
  using Scalar = typename Simd::Scalar;
  constexpr int64_t kLanes = kRows * kColumnVectors * Simd::kLanes;
  static_assert(kLanes <= kMaxTileElements && kLanes * (kMaxSummedUpdates + 1) <= PackedTally::kMax);

  Accumulators<Simd, kRows, kColumnVectors> accumulators;
  accumulators.start(tile);
  if constexpr (kVectors == Vectors::kColumns) accumulators.prefetch(tile);  // others are parts of no output

  const int64_t products = kRows * tile.valid_columns;  // of one update that feed an output element
  const bool starts_empty = tile.start == Start::kNothing || tile.start == Start::kOutput;
  const int64_t holding = starts_empty ? 0 : products;  // of their accumulators, those that hold a value at first
  PackedTally counts;
  Tally updates, nonzero;
  const int64_t inside_before = counters.mul - counters.pad;

  // An address for each vector, hidden from the compiler: its load adds an update's offset, with no instruction for the
  // sum that two vectors would share.
  const Scalar* vector_columns[kColumnVectors];
#pragma GCC unroll 8
  for (int j = 0; j < kColumnVectors; ++j) {
    vector_columns[j] = tile.column_values + j * tile.vector_step;
    asm("" : "+r"(vector_columns[j]));
  }

  const auto update = [&](int64_t k, int64_t count) {
    const Update where = tile.updates[k];
    const Scalar* rows = tile.row_values + k * kRowStride;
    if constexpr (kVectors == Vectors::kRows) {
      accumulators.multiply_add(tile.column_values + offset_of(where), [&](int j) { return rows + j * Simd::kLanes; });
    } else {
      accumulators.multiply_add(rows, [&](int j) { return vector_columns[j] + offset_of(where); });
    }

    counts += count;
    updates += static_cast<int64_t>(where);  // their padding
    if constexpr (kCountZero) nonzero += int64_t{tile.nonzero_rows[k]} * tile.nonzero_columns[k];
  };

  const auto empty_counts = [&] {
    counts.empty_into(counters.mul, counters.add, counters.lane);
    counters.pad += padding_of(updates) * tile.products_per_input;
    updates = {};
  };

  update(0, PackedTally::pack(products, holding, kLanes));
  for (int64_t k = 1, last = kMaxSummedUpdates;; last += kMaxSummedUpdates) {
    if (last > tile.depth) last = tile.depth;
#pragma GCC unroll 4
    for (; k < last; ++k) update(k, PackedTally::pack(products, products, kLanes));
    if (last == tile.depth) break;
    empty_counts();
  }
  if (tile.start == Start::kOutput) {
    accumulators.add_output(tile);
    counts += PackedTally::pack(0, products, 0);
  }
  empty_counts();
  accumulators.store(tile);
  if constexpr (kCountZero) counters.zero += counters.mul - counters.pad - inside_before - nonzero;
}

// Fills in the functions for kRows rows and 1 to kColumnVectors column vectors, then those for fewer rows.
template <class Simd, int kRows, int kColumnVectors, int kRowStride, Vectors kVectors>
constexpr void add_functions(TileFamily<typename Simd::Scalar>& family) {
  auto& functions = family.functions[static_cast<int>(kVectors)];
  functions[false][kRows - 1][kColumnVectors - 1] =
      multiply_tile<Simd, kRows, kColumnVectors, kRowStride, kVectors, false>;
  functions[true][kRows - 1][kColumnVectors - 1] =
      multiply_tile<Simd, kRows, kColumnVectors, kRowStride, kVectors, true>;
  if constexpr (kColumnVectors > 1) add_functions<Simd, kRows, kColumnVectors - 1, kRowStride, kVectors>(family);
}

template <class Simd, int kRows, int kColumnVectors, int kMaxRows>
constexpr void add_rows(TileFamily<typename Simd::Scalar>& family) {
  add_functions<Simd, kRows, kColumnVectors, kMaxRows, Vectors::kColumns>(family);
  add_functions<Simd, kRows, kColumnVectors, kColumnVectors * Simd::kLanes, Vectors::kRows>(family);
  if constexpr (kRows > 1) add_rows<Simd, kRows - 1, kColumnVectors, kMaxRows>(family);
}

template <class Simd, int kMaxRows, int kMaxColumnVectors>
constexpr TileFamily<typename Simd::Scalar> make_family() {
  static_assert(kMaxRows <= kMaxTileRows && kMaxColumnVectors <= kMaxTileColumnVectors);
  static_assert(kMaxColumnVectors * Simd::kLanes <= kMaxTileColumns);
  TileFamily<typename Simd::Scalar> family{Simd::kLanes, kMaxRows, kMaxColumnVectors, {}};
  add_rows<Simd, kMaxRows, kMaxColumnVectors, kMaxRows>(family);
  return family;
}

}  // namespace
}  // namespace flopcuda::cpu
