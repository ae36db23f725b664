// What kernels do with their type of number, float or double: the multiply-add, and accesses of 128 bits.
#pragma once

#include <cstring>

#include "cuda/tiles.h"

namespace flopcuda::cuda {

__device__ inline float multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ inline double multiply_add(double a, double b, double c) { return __fma_rn(a, b, c); }

// Neighbours that one access moves.
template <class Scalar>
constexpr int VECTOR = ACCESS_BYTES / sizeof(Scalar);

// Some of an array of registers.
template <class Scalar, int SIZE>
__device__ inline Scalar (&vector_of(Scalar (&values)[SIZE], int first))
    [VECTOR<Scalar>] { return *reinterpret_cast<Scalar(*)[VECTOR<Scalar>]>(values + first); }

template <class Scalar>
__device__ inline void load_vector(Scalar (&values)[VECTOR<Scalar>], const Scalar* source) {
  const uint4 bits = *reinterpret_cast<const uint4*>(source);
  memcpy(values, &bits, sizeof(bits));
}

template <class Scalar>
__device__ inline void store_vector(Scalar* destination, const Scalar (&values)[VECTOR<Scalar>]) {
  uint4 bits;
  memcpy(&bits, values, sizeof(bits));
  *reinterpret_cast<uint4*>(destination) = bits;
}

}  // namespace flopcuda::cuda
