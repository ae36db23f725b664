// Copies of short runs of elements, for which a call of memcpy would take longer than the copy.
#pragma once

#include <cstdint>
#include <cstring>

namespace flopcuda::cpu {

// Elements of the vector that every CPU of today has.
template <class Scalar>
constexpr int kBaselineLanes = 16 / sizeof(Scalar);

// The ranges must not overlap.
template <class Scalar>
inline void copy_elements(const Scalar* source, int64_t count, Scalar* target) {
  constexpr int64_t kStep = kBaselineLanes<Scalar>;
  constexpr int64_t kPanel = 64 / sizeof(Scalar);  // two vectors of AVX2; the widest panels have one or two of these
  if (count == kPanel) {
    std::memcpy(target, source, kPanel * sizeof(Scalar));
  } else if (count == 2 * kPanel) {
    std::memcpy(target, source, 2 * kPanel * sizeof(Scalar));
  } else if (count > 64) {
    std::memcpy(target, source, count * sizeof(Scalar));
  } else if (count >= kStep) {
    for (int64_t i = 0; i + kStep <= count; i += kStep) std::memcpy(target + i, source + i, kStep * sizeof(Scalar));
    std::memcpy(target + count - kStep, source + count - kStep, kStep * sizeof(Scalar));
  } else {
    for (int64_t i = 0; i < count; ++i) target[i] = source[i];
  }
}

template <class Scalar>
inline void zero_elements(Scalar* target, int64_t count) {
  for (int64_t i = 0; i < count; ++i) target[i] = 0;
}

// A vector of even elements, from source[0] to source[2 * kLanes - 2]; reads nothing beyond.
template <class Scalar>
inline void copy_even_vector(const Scalar* source, Scalar* target) {
  constexpr int kLanes = kBaselineLanes<Scalar>;
  typedef Scalar Vector __attribute__((vector_size(16)));
  Vector first, second, even;
  std::memcpy(&first, source, sizeof(Vector));
  std::memcpy(&second, source + kLanes - 1, sizeof(Vector));
  if constexpr (kLanes == 4) {
    even = __builtin_shufflevector(first, second, 0, 2, 5, 7);
  } else {
    even = __builtin_shufflevector(first, second, 0, 3);
  }
  std::memcpy(target, &even, sizeof(Vector));
}

// Every second element, `count` of them.
template <class Scalar>
inline void copy_even(const Scalar* source, int64_t count, Scalar* target) {
  constexpr int64_t kStep = kBaselineLanes<Scalar>;
  if (count >= kStep) {
    for (int64_t i = 0; i + kStep <= count; i += kStep) copy_even_vector(source + 2 * i, target + i);
    copy_even_vector(source + 2 * (count - kStep), target + count - kStep);
  } else {
    for (int64_t i = 0; i < count; ++i) target[i] = source[2 * i];
  }
}

// Every `stride`-th element of source.
template <class Scalar>
inline void copy_strided(const Scalar* source, int64_t stride, int64_t count, Scalar* target) {
  if (stride == 1) return copy_elements(source, count, target);
  if (stride == 2) return copy_even(source, count, target);
  for (int64_t i = 0; i < count; ++i) target[i] = source[i * stride];
}

template <class Scalar>
inline int32_t count_nonzero(const Scalar* values, int64_t count) {
  constexpr int kLanes = kBaselineLanes<Scalar>;
  typedef Scalar Vector __attribute__((vector_size(16)));
  decltype(Vector{} != Vector{}) minus_nonzero{};  // a comparison that holds is -1
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Vector vector;
    std::memcpy(&vector, values + i, sizeof(Vector));
    minus_nonzero += vector != Vector{};
  }
  int32_t nonzero = 0;
  for (int lane = 0; lane < kLanes; ++lane) nonzero -= static_cast<int32_t>(minus_nonzero[lane]);
  for (; i < count; ++i) nonzero += values[i] != 0;
  return nonzero;
}

}  // namespace flopcuda::cpu
