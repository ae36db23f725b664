// The vector that the micro-kernels are templates over. In an unnamed namespace, as tile_kernel.h says.
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

  static inline Vector load(const Scalar* source) {
    Vector vector;
    __builtin_memcpy(&vector, source, sizeof(Vector));
    return vector;
  }

  static inline void store(const Vector& vector, Scalar* target) { __builtin_memcpy(target, &vector, sizeof(Vector)); }

  static inline Vector broadcast(Scalar value) { return value - Vector{}; }
};

}  // namespace
}  // namespace flopcuda::cpu
