// Transposes through shared memory, by how the tile avoids bank conflicts: not at all, by padding, by swizzling.

constexpr int kTile = 32;
constexpr int kRows = 8;  // of threads in a block of 32 x 8

// Each thread moves kTile / kRows elements; a tile's row has kTile + kPad elements, and kSwizzle turns row r by r.
template <class T, int kPad, bool kSwizzle>
__device__ void transpose(const T* in, T* out, int rows, int columns) {
  __shared__ T tile[kTile][kTile + kPad];
  const auto place = [](int row, int column) { return kSwizzle ? column ^ row : column; };
  const int x = blockIdx.x * kTile + threadIdx.x, y = blockIdx.y * kTile + threadIdx.y;
  for (int j = 0; j < kTile; j += kRows) {
    const int row = threadIdx.y + j;
    if (x < columns && y + j < rows) tile[row][place(row, threadIdx.x)] = in[(y + j) * columns + x];
  }
  __syncthreads();
  const int to_x = blockIdx.y * kTile + threadIdx.x, to_y = blockIdx.x * kTile + threadIdx.y;
  for (int j = 0; j < kTile; j += kRows) {
    const int column = threadIdx.y + j;
    if (to_x < rows && to_y + j < columns) {
      out[(to_y + j) * rows + to_x] = tile[threadIdx.x][place(threadIdx.x, column)];
    }
  }
}

#define TRANSPOSE(name, type, pad, swizzle)                                           \
  extern "C" __global__ void name(const type* in, type* out, int rows, int columns) { \
    transpose<type, pad, swizzle>(in, out, rows, columns);                            \
  }
TRANSPOSE(transpose_float, float, 0, false)
TRANSPOSE(transpose_float_padded, float, 1, false)
TRANSPOSE(transpose_float_swizzled, float, 0, true)
TRANSPOSE(transpose_short, short, 0, false)
TRANSPOSE(transpose_short_padded, short, 2, false)
TRANSPOSE(transpose_double, double, 0, false)
TRANSPOSE(transpose_double_padded, double, 1, false)
TRANSPOSE(transpose_complex, double2, 0, false)
TRANSPOSE(transpose_complex_padded, double2, 1, false)

// Straight from global to global memory: reads along rows, writes along columns.
extern "C" __global__ void transpose_naive(const float* in, float* out, int rows, int columns) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x < columns && y < rows) out[x * rows + y] = in[y * columns + x];
}

// Copies every stride-th element, from `offset` on.
extern "C" __global__ void copy_strided(const float* in, float* out, int n, int stride, int offset) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = in[offset + i * stride];
}
