// C = A B in single precision, row-major: tiles of 32 x 32 x 16 in shared memory, 2 x 2 elements of C in each of 256
// threads' registers.

constexpr int kTile = 32, kDepth = 16;

extern "C" __global__ void sgemm(const float* a, const float* b, float* c, int m, int n, int k) {
  __shared__ float a_tile[kDepth][kTile + 1], b_tile[kDepth][kTile];
  const int thread = threadIdx.x, tx = thread % 16, ty = thread / 16;
  const int row0 = blockIdx.y * kTile, column0 = blockIdx.x * kTile;
  float sum[2][2] = {};
  for (int k0 = 0; k0 < k; k0 += kDepth) {
    for (int i = thread; i < kTile * kDepth; i += 256) {
      const int row = i / kDepth, depth = i % kDepth;
      a_tile[depth][row] = row0 + row < m && k0 + depth < k ? a[(row0 + row) * k + k0 + depth] : 0.0f;
    }
    for (int i = thread; i < kTile * kDepth; i += 256) {
      const int depth = i / kTile, column = i % kTile;
      b_tile[depth][column] = column0 + column < n && k0 + depth < k ? b[(k0 + depth) * n + column0 + column] : 0.0f;
    }
    __syncthreads();
    for (int depth = 0; depth < kDepth; ++depth) {
      for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 2; ++j) {
          sum[i][j] = fmaf(a_tile[depth][ty + 16 * i], b_tile[depth][tx + 16 * j], sum[i][j]);
        }
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 2; ++j) {
      const int row = row0 + ty + 16 * i, column = column0 + tx + 16 * j;
      if (row < m && column < n) c[row * n + column] = sum[i][j];
    }
  }
}
