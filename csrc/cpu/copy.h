// Copies of short runs of floats, for which a call of memcpy would take longer than the copy.
#pragma once

#include <cstdint>
#include <cstring>

namespace flopcuda::cpu {

// The ranges must not overlap.
inline void copy_floats(const float* source, int64_t count, float* target) {
  constexpr int64_t kStep = 4;  // floats in a vector that every CPU of today has
  if (count > 64) {
    std::memcpy(target, source, count * sizeof(float));
  } else if (count >= kStep) {
    for (int64_t i = 0; i + kStep <= count; i += kStep) std::memcpy(target + i, source + i, kStep * sizeof(float));
    std::memcpy(target + count - kStep, source + count - kStep, kStep * sizeof(float));
  } else {
    for (int64_t i = 0; i < count; ++i) target[i] = source[i];
  }
}

inline void zero_floats(float* target, int64_t count) {
  for (int64_t i = 0; i < count; ++i) target[i] = 0;
}

// Every `stride`-th float of source.
inline void copy_strided_floats(const float* source, int64_t stride, int64_t count, float* target) {
  if (stride == 1) return copy_floats(source, count, target);
  for (int64_t i = 0; i < count; ++i) target[i] = source[i * stride];
}

inline int32_t count_nonzero(const float* values, int64_t count) {
  int32_t nonzero = 0;
  for (int64_t i = 0; i < count; ++i) nonzero += values[i] != 0;
  return nonzero;
}

}  // namespace flopcuda::cpu
