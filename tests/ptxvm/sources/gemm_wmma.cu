// C = A B through nvcuda::wmma: a warp has one tile of C, its operands straight from global memory. All sizes are
// multiples of the tile's.

#include <cuda_bf16.h>
#include <mma.h>

using namespace nvcuda;

template <int kM, int kN, int kK, class In, class Sum, class BLayout, class Memory>
__device__ void gemm(const Memory* a, const Memory* b, Sum* c, int m, int n, int k) {
  wmma::fragment<wmma::matrix_a, kM, kN, kK, In, wmma::row_major> a_part;
  wmma::fragment<wmma::matrix_b, kM, kN, kK, In, BLayout> b_part;
  wmma::fragment<wmma::accumulator, kM, kN, kK, Sum> sum;
  const int row = blockIdx.y * kM, column = blockIdx.x * kN;
  constexpr bool kRow = std::is_same<BLayout, wmma::row_major>::value;
  wmma::fill_fragment(sum, Sum(0));
  for (int depth = 0; depth < k; depth += kK) {
    wmma::load_matrix_sync(a_part, a + row * k + depth, k);
    wmma::load_matrix_sync(b_part, kRow ? b + depth * n + column : b + column * k + depth, kRow ? n : k);
    wmma::mma_sync(sum, a_part, b_part, sum);
  }
  for (int i = 0; i < sum.num_elements; ++i) sum.x[i] = sum.x[i] + sum.x[i];  // whatever element each is
  wmma::store_matrix_sync(c + row * n + column, sum, n, wmma::mem_row_major);
}

#define GEMM(name, m_, n_, k_, in, sum, layout, memory)                                            \
  extern "C" __global__ void name(const memory* a, const memory* b, sum* c, int m, int n, int k) { \
    gemm<m_, n_, k_, in, sum, wmma::layout>(a, b, c, m, n, k);                                     \
  }
GEMM(half_to_float, 16, 16, 16, half, float, row_major, half)
GEMM(half_to_half, 16, 16, 16, half, half, col_major, half)
GEMM(half_tall, 32, 8, 16, half, float, col_major, half)
GEMM(half_wide, 8, 32, 16, half, float, row_major, half)
GEMM(byte_to_int, 16, 16, 16, signed char, int, col_major, signed char)
GEMM(unsigned_byte_to_int, 32, 8, 16, unsigned char, int, row_major, unsigned char)
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
GEMM(bfloat_to_float, 16, 16, 16, __nv_bfloat16, float, row_major, __nv_bfloat16)
GEMM(tf32_to_float, 16, 16, 8, wmma::precision::tf32, float, col_major, float)
GEMM(double_to_double, 8, 8, 4, double, double, row_major, double)
#endif
