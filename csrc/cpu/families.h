// The micro-kernels of tiles and planes of one instruction set, for the files that instantiate them.
#pragma once

#include "plane_kernel.h"
#include "tile_kernel.h"

namespace flopcuda::cpu {
namespace {

// Everything that an instruction set offers, in vectors of kBytes: blocks of kMaxRows by kMaxColumnVectors, strips of
// one row, rows of planes.
template <class Simd, int kMaxRows, int kMaxColumnVectors>
constexpr TileFamilies<typename Simd::Scalar> make_families() {
  return {make_family<Simd, kMaxRows, kMaxColumnVectors>(), make_family<Simd, 1, kMaxTileColumnVectors>(),
          make_planes<Simd>()};
}

template <int kBytes, int kMaxRows, int kMaxColumnVectors>
constexpr MicroKernels make_micro_kernels() {
  return {make_families<Simd<float, kBytes>, kMaxRows, kMaxColumnVectors>(),
          make_families<Simd<double, kBytes>, kMaxRows, kMaxColumnVectors>()};
}

}  // namespace
}  // namespace flopcuda::cpu
