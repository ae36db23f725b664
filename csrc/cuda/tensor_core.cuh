// The tensor cores' instructions, with sums in float32: matrices from shared memory to registers, and their product.
//
// They take float16 and bfloat16 as they are. Of a float32, TF32 is the sign, the exponent and the first ten bits of
// the significand; the tensor core does not read the other thirteen (PTX ISA, mma, ".tf32"; and so does the virtual
// machine), so that a factor is cut off, by less than 2^-10 of itself, and nothing in the main loop has to round it.
// An addition for each register would round instead (cvt.rna.tf32), to within 2^-11, and be every third instruction.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cuda/data_type.h"

namespace flopcuda::cuda {

// Outputs of what one mma of a warp multiplies.
constexpr int MMA_M = 16, MMA_N = 8;
// Rows of the 8 x 8 matrices of 16 bits, of which ldmatrix reads four; a row is 16 bytes. Numbers of 32 bits are moved
// as pairs of 16: a lane gets the one that it is to have.
constexpr int MATRIX_ROWS = 8;

// What a number is in memory.
template <DataType TYPE>
using TensorScalar = std::conditional_t<TYPE == DataType::float16, __half,
                                        std::conditional_t<TYPE == DataType::bfloat16, __nv_bfloat16, float>>;

// Four 8 x 8 matrices: lanes 8 i to 8 i + 7 give the addresses of the rows of matrix i.
__device__ inline void load_matrices(uint32_t (&matrices)[4], uint32_t row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(row_address)
               : "memory");
}

#define FLOPCUDA_MMA(shape, operand)                                \
  asm("mma.sync.aligned." shape ".row.col.f32." operand "." operand \
      ".f32 {%0, %1, %2, %3}, "                                     \
      "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"               \
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])  \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

// sums += a * b.
template <DataType TYPE>
__device__ inline void multiply_matrices(float (&sums)[4], const uint32_t (&a)[4], const uint32_t* b) {
  if constexpr (TYPE == DataType::float16) {
    FLOPCUDA_MMA("m16n8k16", "f16");
  } else if constexpr (TYPE == DataType::bfloat16) {
    FLOPCUDA_MMA("m16n8k16", "bf16");
  } else {
    FLOPCUDA_MMA("m16n8k8", "tf32");
  }
}

#undef FLOPCUDA_MMA

// The numbers of a register, those that are not 0 as 2 and the others as 0. The sum of a magnitude and the largest one
// carries into the sign's bit unless the magnitude is 0; one bit further on, it is the 2 of every type.
template <DataType TYPE>
__device__ inline uint32_t mark_nonzero(uint32_t numbers) {
  constexpr uint32_t MAGNITUDES = scalar_bytes(TYPE) == 2 ? 0x7fff7fff : 0x7fffffff;
  constexpr uint32_t TWOS = scalar_bytes(TYPE) == 2 ? 0x40004000 : 0x40000000;
  return ((numbers & MAGNITUDES) + MAGNITUDES) >> 1 & TWOS;
}

__device__ inline float to_float(__half value) { return __half2float(value); }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ inline float to_float(float value) { return value; }

template <class Scalar>
__device__ inline Scalar round_to(float value) {
  if constexpr (std::is_same_v<Scalar, __half>) {
    return __float2half_rn(value);
  } else if constexpr (std::is_same_v<Scalar, __nv_bfloat16>) {
    return __float2bfloat16_rn(value);
  } else {
    return value;
  }
}

// The sums that one register holds as outputs, from the first on: two, the first in the low bits, or one.
template <class Scalar, class Sum>
__device__ inline uint32_t round_word(const Sum& sum, int word) {
  uint32_t bits;
  if constexpr (std::is_same_v<Scalar, __half>) {
    const __half2 pair = __floats2half2_rn(sum(2 * word), sum(2 * word + 1));
    memcpy(&bits, &pair, sizeof(bits));
  } else if constexpr (std::is_same_v<Scalar, __nv_bfloat16>) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(sum(2 * word), sum(2 * word + 1));
    memcpy(&bits, &pair, sizeof(bits));
  } else {
    bits = __float_as_uint(sum(word));
  }
  return bits;
}

}  // namespace flopcuda::cuda
