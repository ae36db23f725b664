// The micro-kernels of pairs of bfloat16 (pairs.h): tiles like those of float, in which a lane of each factor is two
// numbers, and a lane of the sums takes two products.
#pragma once

#include "tile_kernel.h"

namespace flopcuda::cpu {
namespace {

template <int kBytes>
struct Pairs : Simd<float, kBytes> {
  using typename Simd<float, kBytes>::Vector;
  typedef uint32_t Words __attribute__((vector_size(kBytes)));
  static constexpr int kProducts = 2;

  // A pair may look like a float that is no number, and that arithmetic would change.
  static inline Vector broadcast(const float& pair) {
    uint32_t word;
    __builtin_memcpy(&word, &pair, sizeof(word));
    return reinterpret_cast<Vector>(word - Words{});
  }

  static inline void multiply_add(Vector& sums, const Vector& a, const Vector& b) {
    sums += first_of(a) * first_of(b);
    sums += second_of(a) * second_of(b);
  }

  static inline Vector first_of(const Vector& pairs) {
    return reinterpret_cast<Vector>(reinterpret_cast<Words>(pairs) << 16);
  }
  static inline Vector second_of(const Vector& pairs) {
    return reinterpret_cast<Vector>(reinterpret_cast<Words>(pairs) & 0xffff0000u);
  }
};

template <class Simd, int kMaxRows, int kMaxColumnVectors>
constexpr PairTiles make_pair_tiles() {
  return {make_family<Simd, kMaxRows, kMaxColumnVectors>(), make_family<Simd, 1, kMaxTileColumnVectors>()};
}

}  // namespace
}  // namespace flopcuda::cpu
