// The micro-kernel: register tiles, `depth` rank-1 updates of each, and the counters incremented beside them. A
// template over GCC/Clang vectors; each micro_kernel_*.cpp instantiates it for those of its instruction set.
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

  inline void begin(Start start, const Scalar* bias) {
    switch (start) {
      case Start::kRowBias:
        return set([&](int i, int) { return Simd::broadcast(bias[i]); });
      case Start::kColumnBias:
        return set([&](int, int j) { return Simd::load(bias + j * kLanes); });
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
      for (int j = 0; j < kColumnVectors; ++j) Simd::multiply_add(vectors[i][j], row, column_vectors[j]);
    }
  }

  // Asks for the output's cache lines behind this tile, where the next panel of columns ends: a tile may be done before
  // its own come from memory.
  inline void prefetch(const Scalar* output, int64_t output_stride) const {
    constexpr int kColumns = kColumnVectors * kLanes, kLine = 64 / sizeof(Scalar);
#pragma GCC unroll 14
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
      for (int end = kColumns; end > 0; end -= kLine) {
        __builtin_prefetch(output + i * output_stride + kColumns + end - 1, 1);
      }
    }
  }

  // Adds the partial sums of earlier depth blocks.
  inline void add_output(const Scalar* output, int64_t output_stride) {
#pragma GCC unroll 14
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < kColumnVectors; ++j) {
        vectors[i][j] += Simd::load(output + i * output_stride + j * kLanes);
      }
    }
  }

  inline void store(Scalar* output, int64_t output_stride) const {
#pragma GCC unroll 14
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < kColumnVectors; ++j) {
        Simd::store(vectors[i][j], output + i * output_stride + j * kLanes);
      }
    }
  }
};

// kRowStride: elements from one update's rows of the product to the next one's.
template <class Simd, int kRows, int kColumnVectors, int kRowStride, Vectors kVectors, bool kCountZero>
void multiply_tiles(const Tiles<typename Simd::Scalar>& tiles, Counters& counters) {
  using Scalar = typename Simd::Scalar;
  constexpr int64_t kLanes = kRows * kColumnVectors * Simd::kLanes, kProducts = Simd::kProducts;
  // Each of a tile's updates counts its lanes, and adding partial sums of earlier blocks counts once more.
  static_assert(kLanes <= kMaxTileElements && 2 * kProducts * kLanes * kMaxSummedUpdates <= PackedTally::kMax);

  const int64_t depth = tiles.depth, output_stride = tiles.output_stride;
  const int64_t outputs = kRows * tiles.valid_columns;  // that an update adds to
  const int64_t products = kProducts * outputs;         // of one update that feed an output element
  const bool starts_empty = tiles.start == Start::kNothing || tiles.start == Start::kOutput;
  const int64_t additions = starts_empty ? products - outputs : products;  // of the first update
  const int64_t of_second = PackedTally::pack(outputs, outputs, 0);  // what the second numbers of pairs add to that
  PackedTally counts;
  Tally updates, singles, nonzero;
  int64_t summed = 0;  // of the updates, those whose counts are not emptied yet
  const int64_t inside_before = counters.mul - counters.pad;

  const auto empty_counts = [&] {
    counts.empty_into(counters.mul, counters.add, counters.lane);
    counters.pad += (padding_of(updates) * kProducts - padding_of(singles)) * tiles.products_per_input;
    updates = singles = {};
    summed = 0;
  };

  // An address for each vector, hidden from the compiler: its load adds an update's offset, with no instruction for the
  // sum that two vectors would share.
  const Scalar* vector_columns[kColumnVectors];
#pragma GCC unroll 8
  for (int j = 0; j < kColumnVectors; ++j) {
    vector_columns[j] = tiles.column_values + j * tiles.vector_step;
    asm("" : "+r"(vector_columns[j]));
  }

  for (int64_t index = 0; index < tiles.count; ++index) {
    const Scalar* const row_values = tiles.row_values + index * tiles.row_values_step;
    Scalar* const output = tiles.output + index * tiles.output_step;
    Accumulators<Simd, kRows, kColumnVectors> accumulators;
    accumulators.begin(tiles.start, tiles.bias + index * tiles.bias_step);
    if constexpr (kVectors == Vectors::kColumns)
      accumulators.prefetch(output, output_stride);  // others are in no output

    const auto update = [&](int64_t k, int64_t count) {
      const Update where = tiles.updates[k];
      const Scalar* rows = row_values + k * kRowStride;
      if constexpr (kVectors == Vectors::kRows) {
        accumulators.multiply_add(tiles.column_values + offset_of(where),
                                  [&](int j) { return rows + j * Simd::kLanes; });
      } else {
        accumulators.multiply_add(rows, [&](int j) { return vector_columns[j] + offset_of(where); });
      }

      const bool is_single = kProducts > 1 && k >= tiles.whole_pairs;
      counts += is_single ? count - of_second : count;
      updates += static_cast<int64_t>(where);  // their padding
      if constexpr (kProducts > 1) singles += is_single ? static_cast<int64_t>(where) : 0;
      if constexpr (kCountZero) nonzero += int64_t{tiles.nonzero_rows[index * depth + k]} * tiles.nonzero_columns[k];
    };

    if (summed + depth > kMaxSummedUpdates) empty_counts();
    update(0, PackedTally::pack(products, additions, kProducts * kLanes));
    for (int64_t k = 1, last = kMaxSummedUpdates;; last += kMaxSummedUpdates) {
      if (last > depth) last = depth;
#pragma GCC unroll 4
      for (; k < last; ++k) update(k, PackedTally::pack(products, products, kProducts * kLanes));
      if (last == depth) break;
      empty_counts();
    }
    summed += depth;
    if (tiles.start == Start::kOutput) {
      accumulators.add_output(output, output_stride);
      counts += PackedTally::pack(0, outputs, 0);
    }
    accumulators.store(output, output_stride);
  }
  empty_counts();
  if constexpr (kCountZero) counters.zero += counters.mul - counters.pad - inside_before - nonzero;
}

// Fills in the functions for kRows rows and 1 to kColumnVectors column vectors, then those for fewer rows.
template <class Simd, int kRows, int kColumnVectors, int kRowStride, Vectors kVectors>
constexpr void add_functions(TileFamily<typename Simd::Scalar>& family) {
  auto& functions = family.functions[static_cast<int>(kVectors)];
  functions[false][kRows - 1][kColumnVectors - 1] =
      multiply_tiles<Simd, kRows, kColumnVectors, kRowStride, kVectors, false>;
  if constexpr (Simd::kProducts == 1) {  // else each value is of two numbers, and zeros are not counted
    functions[true][kRows - 1][kColumnVectors - 1] =
        multiply_tiles<Simd, kRows, kColumnVectors, kRowStride, kVectors, true>;
  }
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
