// C = A B on tensor cores by hand, row-major halves into floats: tiles of 64 x 64 x 32 that cp.async brings into three
// stages of shared memory, ldmatrix out of them, and mma.sync.m16n8k16. Four warps have 32 x 32 of a tile each.
//
// n and k are multiples of 8, so that chunks of 8 halves are all inside or all outside.

#include <cuda_fp16.h>

constexpr int kM = 64, kN = 64, kK = 32;
constexpr int kStages = 3, kThreads = 128;
constexpr int kChunk = 8;  // halves that are copied, and that ldmatrix reads, at a time: 16 bytes

// Where chunk c of row r lies in a tile whose rows have kWidth chunks. Eight rows of one column must fall on different
// banks; a row of 4 chunks covers only half of them.
template <int kWidth, bool kSwizzle>
__device__ int place(int r, int c) {
  const int turn = kWidth == 4 ? r / 2 % 4 : r % 8;
  return (r * kWidth + (kSwizzle ? c ^ turn : c)) * kChunk;
}

__device__ unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// Zeros where there is nothing to read.
__device__ void copy_chunk(half* to, const half* from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(inside ? 16 : 0));
}

template <bool kTranspose>
__device__ void load_matrices(unsigned (&d)[4], const half* row) {
  if (kTranspose) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(shared_address(row)));
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(shared_address(row)));
  }
}

__device__ void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <bool kSwizzle>
__device__ void gemm(const half* a, const half* b, float* c, int m, int n, int k) {
  __shared__ __align__(128) half a_tiles[kStages][kM * kK], b_tiles[kStages][kK * kN];
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int row0 = blockIdx.y * kM, column0 = blockIdx.x * kN;
  const int warp_row = warp / 2 * 32, warp_column = warp % 2 * 32;
  const int steps = (k + kK - 1) / kK;

  const auto fetch = [&](int step) {
    if (step < steps) {
      half *a_tile = a_tiles[step % kStages], *b_tile = b_tiles[step % kStages];
      for (int i = thread; i < kM * kK / kChunk; i += kThreads) {
        const int row = i / 4, chunk = i % 4, at = step * kK + chunk * kChunk;
        const bool inside = row0 + row < m && at < k;
        copy_chunk(a_tile + place<4, kSwizzle>(row, chunk), inside ? a + (row0 + row) * k + at : a, inside);
      }
      for (int i = thread; i < kK * kN / kChunk; i += kThreads) {
        const int row = i / 8, chunk = i % 8, at = column0 + chunk * kChunk;
        const bool inside = step * kK + row < k && at < n;
        copy_chunk(b_tile + place<8, kSwizzle>(row, chunk), inside ? b + (step * kK + row) * n + at : b, inside);
      }
    }
    asm volatile("cp.async.commit_group;");
  };

  float sums[2][4][4] = {};
  for (int step = 0; step < kStages - 1; ++step) fetch(step);
  for (int step = 0; step < steps; ++step) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2));
    __syncthreads();
    fetch(step + kStages - 1);
    const half *a_tile = a_tiles[step % kStages], *b_tile = b_tiles[step % kStages];
    for (int depth = 0; depth < kK; depth += 16) {
      unsigned a_part[2][4], b_part[2][4];
      for (int i = 0; i < 2; ++i) {
        const int row = warp_row + 16 * i + lane % 16, chunk = depth / kChunk + lane / 16;
        load_matrices<false>(a_part[i], a_tile + place<4, kSwizzle>(row, chunk));
      }
      for (int j = 0; j < 2; ++j) {
        const int row = depth + lane % 16, chunk = warp_column / kChunk + 2 * j + lane / 16;
        load_matrices<true>(b_part[j], b_tile + place<8, kSwizzle>(row, chunk));
      }
      for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 4; ++j) {
          multiply_add(sums[i][j], a_part[i], b_part[j / 2][j % 2 * 2], b_part[j / 2][j % 2 * 2 + 1]);
        }
      }
    }
  }

  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 4; ++j) {
      const int row = row0 + warp_row + 16 * i + lane / 4, column = column0 + warp_column + 8 * j + lane % 4 * 2;
      if (column >= n) continue;
      if (row < m) *reinterpret_cast<float2*>(c + row * n + column) = {sums[i][j][0], sums[i][j][1]};
      if (row + 8 < m) *reinterpret_cast<float2*>(c + (row + 8) * n + column) = {sums[i][j][2], sums[i][j][3]};
    }
  }
}

extern "C" __global__ void gemm_plain(const half* a, const half* b, float* c, int m, int n, int k) {
  gemm<false>(a, b, c, m, n, k);
}
extern "C" __global__ void gemm_swizzled(const half* a, const half* b, float* c, int m, int n, int k) {
  gemm<true>(a, b, c, m, n, k);
}
