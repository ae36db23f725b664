// The vector that the micro-kernels are templates over, and what is counted in its lanes. In an unnamed namespace, as
// tile_kernel.h says.
#pragma once

#include <cstdint>

namespace flopcuda::cpu {
namespace {

// A vector of an instruction set.
template <class Element, int kBytes>
struct Simd {
  using Scalar = Element;
  typedef Scalar Vector __attribute__((vector_size(kBytes)));
  static constexpr int kLanes = kBytes / sizeof(Scalar);
  static constexpr int kProducts = 1;  // of two lanes, one of each factor

  static inline Vector load(const Scalar* source) {
    Vector vector;
    __builtin_memcpy(&vector, source, sizeof(Vector));
    return vector;
  }

  static inline void store(const Vector& vector, Scalar* target) { __builtin_memcpy(target, &vector, sizeof(Vector)); }

  // Its first `count` lanes.
  [[gnu::noinline]] static void store_first(const Vector& vector, int64_t count, Scalar* target) {
    constexpr int64_t kPart = 16 / sizeof(Scalar);
    const Scalar* source = reinterpret_cast<const Scalar*>(&vector);
    if (count < kPart) {
      for (int64_t i = 0; i < count; ++i) target[i] = source[i];
      return;
    }
    for (int64_t i = 0; i + kPart <= count; i += kPart) __builtin_memcpy(target + i, source + i, 16);
    __builtin_memcpy(target + count - kPart, source + count - kPart, 16);
  }

  static inline Vector broadcast(Scalar value) { return value - Vector{}; }

  static inline void multiply_add(Vector& sums, const Vector& a, const Vector& b) { sums += a * b; }
};

// A count in every lane of a vector.
template <class Simd>
struct LaneCounts {
  using Mask = decltype(typename Simd::Vector{} != typename Simd::Vector{});

  // -1 where a value is not 0; by its bits, for a thread may be set to take subnormal numbers for 0.
  static inline Mask minus_nonzero(const typename Simd::Vector& values) {
    return reinterpret_cast<Mask>(values) << 1 != Mask{};
  }

  // -1 in so many of them.
  static inline Mask first_lanes(int64_t count) {
    Mask first{};
    for (int64_t i = 0; i < count; ++i) first[i] = -1;
    return first;
  }

  Mask lanes{};

  inline int64_t sum(int64_t valid_lanes) const {
    int64_t total = 0;
    for (int64_t i = 0; i < valid_lanes; ++i) total += lanes[i];
    return total;
  }
};

}  // namespace
}  // namespace flopcuda::cpu
