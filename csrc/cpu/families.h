// The micro-kernels of tiles and planes of one instruction set, for the files that instantiate them.
#pragma once

#include "plane_kernel.h"
#include "tile_kernel.h"

namespace flopcuda::cpu {
namespace {

// Narrower vectors would save less than their own tiles cost.
constexpr int kNarrowestBytes = 32;

// Everything that an instruction set offers, in vectors of kBytes: blocks of kMaxRows by kMaxColumnVectors, strips of
// one row, rows of planes.
template <class Scalar, int kBytes, int kMaxRows, int kMaxColumnVectors>
constexpr TileFamilies<Scalar> make_families() {
  using Wide = Simd<Scalar, kBytes>;
  using Narrow = Simd<Scalar, (kBytes > kNarrowestBytes ? kBytes / 2 : kBytes)>;
  return {make_family<Wide, kMaxRows, kMaxColumnVectors>(), make_family<Wide, 1, kMaxTileColumnVectors>(),
          make_planes<Wide>(), make_planes<Narrow>()};
}

template <int kBytes, int kMaxRows, int kMaxColumnVectors>
constexpr MicroKernels make_micro_kernels() {
  return {make_families<float, kBytes, kMaxRows, kMaxColumnVectors>(),
          make_families<double, kBytes, kMaxRows, kMaxColumnVectors>()};
}

}  // namespace
}  // namespace flopcuda::cpu
