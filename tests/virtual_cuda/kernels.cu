// Kernels of an extension that torch knows nothing of, right ones and defective ones, with functions to launch them.
#include <cuda_runtime.h>

__global__ void scale(float* values, int count, float factor) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) values[i] *= factor;
}

// Without a barrier, a thread may read what its neighbour has not written yet.
__global__ void shift(float* values) {
  __shared__ float copy[64];
  copy[threadIdx.x] = values[threadIdx.x];
  values[threadIdx.x] = copy[(threadIdx.x + 33) % 64];
}

extern "C" void launch_scale(float* values, int count, float factor, cudaStream_t stream) {
  scale<<<(count + 127) / 128, 128, 0, stream>>>(values, count, factor);
}

extern "C" void launch_shift(float* values, cudaStream_t stream) { shift<<<1, 64, 0, stream>>>(values); }
