// The micro-kernel: one register tile, `depth` rank-1 updates, and the counters incremented beside them. A template
// over a GCC/Clang vector type; each micro_kernel_*.cpp instantiates it for its instruction set.
//
// Everything is in an unnamed namespace and nothing of the standard library is used: an inline function with external
// linkage, compiled here with AVX-512, could be the copy that the linker keeps for the whole program.
#pragma once

#include "micro_kernel.h"

namespace flopcuda::cpu {
namespace {

template <class Vector>
inline Vector load(const float* source) {
  Vector vector;
  __builtin_memcpy(&vector, source, sizeof(Vector));
  return vector;
}

template <class Vector>
inline void store(const Vector& vector, float* target) {
  __builtin_memcpy(target, &vector, sizeof(Vector));
}

template <class Vector>
inline Vector broadcast(float value) {
  return value - Vector{};
}

// The first content of the accumulator of row `row` and column vector `vector`.
template <class Vector>
inline Vector start_value(const Tile& tile, int row, int vector) {
  constexpr int kLanes = sizeof(Vector) / sizeof(float);
  switch (tile.start) {
    case Start::kRowBias:
      return broadcast<Vector>(tile.bias[row]);
    case Start::kColumnBias:
      return load<Vector>(tile.bias + vector * kLanes);
    case Start::kOutput:
      return load<Vector>(tile.output + row * tile.output_stride + vector * kLanes);
    case Start::kNothing:
      break;
  }
  return Vector{};
}

template <class Vector, int kRows, int kColumnVectors, bool kCountZero>
void multiply_tile(const Tile& tile, Counters& counters) {
  constexpr int kLanes = sizeof(Vector) / sizeof(float);
  static_assert(kRows * kColumnVectors * kLanes <= kMaxTileElements);

  Vector accumulators[kRows][kColumnVectors];
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kColumnVectors; ++j) accumulators[i][j] = start_value<Vector>(tile, i, j);
  }

  const int64_t products = kRows * tile.valid_columns;             // of one update that feed an output element
  int64_t holding = tile.start == Start::kNothing ? 0 : products;  // of their accumulators, those that hold a value
  int64_t mul = 0, add = 0, pad = 0, zero = 0, lane = 0;
  const float* rows = tile.rows;

  for (int64_t k = 0; k < tile.depth; ++k) {
    const float* columns = tile.columns + tile.column_offsets[k];
    Vector column_vectors[kColumnVectors];
    for (int j = 0; j < kColumnVectors; ++j) column_vectors[j] = load<Vector>(columns + j * kLanes);
#pragma GCC unroll 14
    for (int i = 0; i < kRows; ++i) {
      const Vector row = broadcast<Vector>(rows[i]);
#pragma GCC unroll 8
      for (int j = 0; j < kColumnVectors; ++j) accumulators[i][j] += row * column_vectors[j];
    }
    rows += kRows;

    lane += kRows * kColumnVectors * kLanes;
    mul += products;
    add += holding;
    holding = products;
    pad += kRows * tile.pad_columns[k];
    if constexpr (kCountZero) {
      const int64_t nonzero = int64_t{tile.nonzero_rows[k]} * tile.nonzero_columns[k];
      zero += kRows * (tile.valid_columns - tile.pad_columns[k]) - nonzero;
    }
  }

  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kColumnVectors; ++j) {
      store(accumulators[i][j], tile.output + i * tile.output_stride + j * kLanes);
    }
  }
  counters.mul += mul;
  counters.add += add;
  counters.pad += pad;
  counters.zero += zero;
  counters.lane += lane;
}

// Fills in the functions for kRows rows and 1 to kColumnVectors column vectors, then those for fewer rows.
template <class Vector, int kRows, int kColumnVectors>
constexpr void add_functions(TileFamily& family) {
  family.functions[false][kRows - 1][kColumnVectors - 1] = multiply_tile<Vector, kRows, kColumnVectors, false>;
  family.functions[true][kRows - 1][kColumnVectors - 1] = multiply_tile<Vector, kRows, kColumnVectors, true>;
  if constexpr (kColumnVectors > 1) add_functions<Vector, kRows, kColumnVectors - 1>(family);
}

template <class Vector, int kRows, int kColumnVectors>
constexpr void add_rows(TileFamily& family) {
  add_functions<Vector, kRows, kColumnVectors>(family);
  if constexpr (kRows > 1) add_rows<Vector, kRows - 1, kColumnVectors>(family);
}

template <class Vector, int kMaxRows, int kMaxColumnVectors>
constexpr TileFamily make_family() {
  static_assert(kMaxRows <= kMaxTileRows && kMaxColumnVectors <= kMaxTileColumnVectors);
  static_assert(kMaxColumnVectors * sizeof(Vector) / sizeof(float) <= kMaxTileColumns);
  TileFamily family{sizeof(Vector) / sizeof(float), kMaxRows, kMaxColumnVectors, {}};
  add_rows<Vector, kMaxRows, kMaxColumnVectors>(family);
  return family;
}

}  // namespace
}  // namespace flopcuda::cpu
