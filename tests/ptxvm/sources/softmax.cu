// Softmax of the rows of a matrix, online: the largest element and the sum of exponentials in one pass.

struct Running {
  float most, sum;  // the sum is of exp(x - most)
};

__device__ Running merge(Running a, Running b) {
  const float most = fmaxf(a.most, b.most);
  if (most == -INFINITY) return {most, 0.0f};
  return {most, a.sum * expf(a.most - most) + b.sum * expf(b.most - most)};
}

// One block for a row; blockDim a multiple of 32.
extern "C" __global__ void softmax(const float* in, float* out, int columns) {
  __shared__ Running of_warp[32];
  const float* row = in + static_cast<long long>(blockIdx.x) * columns;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  Running running{-INFINITY, 0.0f};
  for (int i = threadIdx.x; i < columns; i += blockDim.x) running = merge(running, {row[i], 1.0f});
  const auto reduce = [&] {
    for (int offset = 16; offset > 0; offset /= 2) {
      running = merge(running, {__shfl_xor_sync(0xffffffffu, running.most, offset),
                                __shfl_xor_sync(0xffffffffu, running.sum, offset)});
    }
  };
  reduce();
  if (lane == 0) of_warp[warp] = running;
  __syncthreads();
  running = lane < warps ? of_warp[lane] : Running{-INFINITY, 0.0f};
  reduce();
  for (int i = threadIdx.x; i < columns; i += blockDim.x) {
    out[static_cast<long long>(blockIdx.x) * columns + i] = expf(row[i] - running.most) / running.sum;
  }
}
