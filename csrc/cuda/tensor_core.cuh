// The tensor cores' instructions: matrices from shared memory to registers, and their product, with sums in float32,
// those of float64 in float64.
//
// They take float16, bfloat16 and float64 as they are. Of a float32, TF32 is the sign, the exponent and the first ten
// bits of the significand; the tensor core does not read the other thirteen (PTX ISA, mma, ".tf32"; and so does the
// virtual machine), so that a factor is cut off, by less than 2^-10 of itself, and nothing in the main loop has to
// round it. An addition for each register would round instead (cvt.rna.tf32), to within 2^-11, and be every third
// instruction.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cuda/data_type.h"
#include "cuda/tiles.h"

namespace flopcuda::cuda {

// Outputs of what a warp multiplies at once.
constexpr int MMA_M = 16, MMA_N = 8;
// Rows of a slice in one matrix.
constexpr int MATRIX_ROWS = 8;

// What a number is in memory.
template <DataType TYPE>
using TensorScalar =
    std::conditional_t<TYPE == DataType::float64, double,
                       std::conditional_t<TYPE == DataType::float16, __half,
                                          std::conditional_t<TYPE == DataType::bfloat16, __nv_bfloat16, float>>>;

// What its products are added up in.
template <DataType TYPE>
using TensorSum = std::conditional_t<TYPE == DataType::float64, double, float>;

// What a lane holds of a matrix: a double, or a register of one or two smaller numbers.
template <DataType TYPE>
using TensorWord = std::conditional_t<TYPE == DataType::float64, double, uint32_t>;

// Four 8 x 8 matrices of 16 bits: lanes 8 i to 8 i + 7 give the addresses of the rows of matrix i, 16 bytes each.
// Numbers of 32 bits are moved as pairs of 16: a lane gets the one that it is to have.
__device__ inline void load_matrices(uint32_t (&matrices)[4], uint32_t row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(row_address)
               : "memory");
}

__device__ inline double load_double(uint32_t address) {
  double number;
  asm volatile("ld.shared.f64 %0, [%1];" : "=d"(number) : "r"(address) : "memory");
  return number;
}

#define FLOPCUDA_MMA(shape, operand)                                \
  asm("mma.sync.aligned." shape ".row.col.f32." operand "." operand \
      ".f32 {%0, %1, %2, %3}, "                                     \
      "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"               \
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])  \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

// sums += a * b, of 16 x 8 by 8 x 8 doubles: one instruction, or four for 8 x 4 by 4 x 8.
__device__ inline void multiply_doubles(double (&sums)[4], const double (&a)[4], const double* b) {
#if __CUDA_ARCH__ >= 900
  asm("mma.sync.aligned.m16n8k8.row.col.f64.f64.f64.f64 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+d"(sums[0]), "+d"(sums[1]), "+d"(sums[2]), "+d"(sums[3])
      : "d"(a[0]), "d"(a[1]), "d"(a[2]), "d"(a[3]), "d"(b[0]), "d"(b[1]));
#else
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
        : "+d"(sums[i % 2 * 2]), "+d"(sums[i % 2 * 2 + 1])
        : "d"(a[i]), "d"(b[i / 2]));
  }
#endif
}

// sums += a * b.
template <DataType TYPE>
__device__ inline void multiply_matrices(TensorSum<TYPE> (&sums)[4], const TensorWord<TYPE> (&a)[4],
                                         const TensorWord<TYPE>* b) {
  if constexpr (TYPE == DataType::float64) {
    multiply_doubles(sums, a, b);
  } else if constexpr (TYPE == DataType::float16) {
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

// Of the products of fragments, those of two numbers that are not 0: the lane's share of the warp's. A fragment of B is
// of two products.
//
// The tensor cores count, too: 2 for each number that is not 0 makes 4 of each product that is not. It does not matter
// whose: one set of sums takes them all, exactly.
template <DataType TYPE, int TILES_M, int FRAGMENTS_B>
__device__ inline uint32_t count_nonzero_products(const uint32_t (&a)[TILES_M][4],
                                                  const uint32_t (&b)[FRAGMENTS_B][4]) {
  float fours[4] = {};
#pragma unroll
  for (int m = 0; m < TILES_M; ++m) {
    uint32_t marks_a[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) marks_a[i] = mark_nonzero<TYPE>(a[m][i]);
#pragma unroll
    for (int n = 0; n < 2 * FRAGMENTS_B; ++n) {
      const uint32_t marks_b[2] = {mark_nonzero<TYPE>(b[n / 2][n % 2 * 2]),
                                   mark_nonzero<TYPE>(b[n / 2][n % 2 * 2 + 1])};
      multiply_matrices<TYPE>(fours, marks_a, marks_b);
    }
  }
  uint32_t sum = 0;
#pragma unroll
  for (float count : fours) sum += __float2uint_rn(count);
  return sum >> 2;
}

// Of doubles: a lane's numbers in A meet those of all columns, which eight lanes have, in B.
template <DataType TYPE, int TILES_M, int FRAGMENTS_B>
__device__ inline uint32_t count_nonzero_products(const double (&a)[TILES_M][4], const double (&b)[FRAGMENTS_B][4]) {
  constexpr int BITS = 16;  // for one of the lane's two products of an output, beside the other
  uint32_t rows[2] = {};
  uint32_t columns = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int m = 0; m < TILES_M; ++m) rows[i / 2] += a[m][i] != 0.0;
#pragma unroll
    for (int n = 0; n < FRAGMENTS_B; ++n) columns += static_cast<uint32_t>(b[n][i] != 0.0) << i % 2 * BITS;
  }
#pragma unroll
  for (int distance = 4; distance < WARP_SIZE; distance *= 2) columns += __shfl_xor_sync(~0u, columns, distance);
  return rows[0] * (columns % (1u << BITS)) + rows[1] * (columns >> BITS);
}

__device__ inline float to_sum(__half value) { return __half2float(value); }
__device__ inline float to_sum(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ inline float to_sum(float value) { return value; }
__device__ inline double to_sum(double value) { return value; }

template <class Scalar, class Sum>
__device__ inline Scalar round_to(Sum value) {
  if constexpr (std::is_same_v<Scalar, __half>) {
    return __float2half_rn(value);
  } else if constexpr (std::is_same_v<Scalar, __nv_bfloat16>) {
    return __float2bfloat16_rn(value);
  } else {
    return value;
  }
}

// The sums that one register holds as outputs, from the first on: two, the first in the low bits, one, or half of one.
template <class Scalar, class Sum>
__device__ inline uint32_t round_word(const Sum& sum, int word) {
  uint32_t bits;
  if constexpr (std::is_same_v<Scalar, __half>) {
    const __half2 pair = __floats2half2_rn(sum(2 * word), sum(2 * word + 1));
    memcpy(&bits, &pair, sizeof(bits));
  } else if constexpr (std::is_same_v<Scalar, __nv_bfloat16>) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(sum(2 * word), sum(2 * word + 1));
    memcpy(&bits, &pair, sizeof(bits));
  } else if constexpr (std::is_same_v<Scalar, double>) {
    bits = word % 2 == 0 ? __double2loint(sum(word / 2)) : __double2hiint(sum(word / 2));
  } else {
    bits = __float_as_uint(sum(word));
  }
  return bits;
}

}  // namespace flopcuda::cuda
