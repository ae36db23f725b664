// The tensor cores' instructions for numbers of 16 bits, with sums in float32: matrices from shared memory to
// registers, and their product.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace flopcuda::cuda {

// What one mma of a warp multiplies: MMA_M x MMA_K by MMA_K x MMA_N.
constexpr int MMA_M = 16, MMA_N = 8, MMA_K = 16;
// Rows of the 8 x 8 matrices of which ldmatrix reads four; a row is 16 bytes.
constexpr int MATRIX_ROWS = 8;

// Four 8 x 8 matrices: lanes 8 i to 8 i + 7 give the addresses of the rows of matrix i.
__device__ inline void load_matrices(uint32_t (&matrices)[4], uint32_t row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(row_address)
               : "memory");
}

// sums += a * b.
template <class Scalar>
__device__ inline void multiply_matrices(float (&sums)[4], const uint32_t (&a)[4], const uint32_t* b) {
  if constexpr (std::is_same_v<Scalar, __half>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

__device__ inline float to_float(__half value) { return __half2float(value); }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
template <class Scalar>
__device__ inline Scalar round_to(float value) {
  if constexpr (std::is_same_v<Scalar, __half>) {
    return __float2half_rn(value);
  } else {
    return __float2bfloat16_rn(value);
  }
}

// Two of them, the first in the low bits.
template <class Scalar>
__device__ inline uint32_t round_pair(float first, float second) {
  uint32_t bits;
  if constexpr (std::is_same_v<Scalar, __half>) {
    const __half2 pair = __floats2half2_rn(first, second);
    memcpy(&bits, &pair, sizeof(bits));
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
    memcpy(&bits, &pair, sizeof(bits));
  }
  return bits;
}

}  // namespace flopcuda::cuda
