// Stencils whose block reads its tile and a halo around it into shared memory; outside the grid everything is 0.

constexpr int kX = 32, kY = 8;

__device__ float at(const float* in, int x, int y, int nx, int ny) {
  return x >= 0 && x < nx && y >= 0 && y < ny ? in[y * nx + x] : 0.0f;
}

// Nine taps with the weights w[3][3].
extern "C" __global__ void stencil_2d(const float* in, float* out, const float* w, int nx, int ny) {
  __shared__ float tile[kY + 2][kX + 2];
  const int x0 = blockIdx.x * kX, y0 = blockIdx.y * kY;
  for (int i = threadIdx.y * kX + threadIdx.x; i < (kY + 2) * (kX + 2); i += kX * kY) {
    const int row = i / (kX + 2), column = i % (kX + 2);
    tile[row][column] = at(in, x0 + column - 1, y0 + row - 1, nx, ny);
  }
  __syncthreads();
  const int x = x0 + threadIdx.x, y = y0 + threadIdx.y;
  if (x >= nx || y >= ny) return;
  float sum = 0.0f;
  for (int dy = 0; dy < 3; ++dy) {
    for (int dx = 0; dx < 3; ++dx) sum = fmaf(w[3 * dy + dx], tile[threadIdx.y + dy][threadIdx.x + dx], sum);
  }
  out[y * nx + x] = sum;
}

// Seven taps: w[0] in the middle, w[1] for the neighbours. Blocks march along z with three planes in registers.
extern "C" __global__ void stencil_3d(const float* in, float* out, const float* w, int nx, int ny, int nz) {
  __shared__ float plane[kY + 2][kX + 2];
  const int x0 = blockIdx.x * kX, y0 = blockIdx.y * kY;
  const int x = x0 + threadIdx.x, y = y0 + threadIdx.y, size = nx * ny;
  const bool inside = x < nx && y < ny;
  float below = 0.0f, here = at(in, x, y, nx, ny);
  for (int z = 0; z < nz; ++z) {
    const float above = z + 1 < nz ? at(in + (z + 1) * size, x, y, nx, ny) : 0.0f;
    for (int i = threadIdx.y * kX + threadIdx.x; i < (kY + 2) * (kX + 2); i += kX * kY) {
      const int row = i / (kX + 2), column = i % (kX + 2);
      plane[row][column] = at(in + z * size, x0 + column - 1, y0 + row - 1, nx, ny);
    }
    __syncthreads();
    if (inside) {
      const int row = threadIdx.y + 1, column = threadIdx.x + 1;
      float sum = w[0] * here;
      sum = fmaf(w[1], below, sum);
      sum = fmaf(w[1], above, sum);
      sum = fmaf(w[1], plane[row - 1][column], sum);
      sum = fmaf(w[1], plane[row + 1][column], sum);
      sum = fmaf(w[1], plane[row][column - 1], sum);
      sum = fmaf(w[1], plane[row][column + 1], sum);
      out[z * size + y * nx + x] = sum;
    }
    __syncthreads();
    below = here;
    here = above;
  }
}
