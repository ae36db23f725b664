// What the library records of a run, printed as the JSON that it gives.
#include <dlfcn.h>

#include "scenarios.h"

__global__ void fused(float* values, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) values[i] = values[i] * 2.0f + 1.0f;
}
__global__ void race(int* out) {
  __shared__ volatile int shared[32];
  shared[threadIdx.x % 32] = threadIdx.x;  // Two warps, and no barrier.
  out[threadIdx.x] = shared[threadIdx.x % 32];
}

static const char* ask(const char* name) { return reinterpret_cast<const char* (*)()>(dlsym(RTLD_DEFAULT, name))(); }

SCENARIO(launches) {
  const Array<float> values(std::vector<float>(100));
  fused<<<dim3(2, 1, 1), 64>>>(values.data, 100);
  fused<<<1, 32>>>(values.data, 100);
  CHECK(cudaDeviceSynchronize());
  std::puts(ask("flopcuda_vcuda_launches_json"));
}

SCENARIO(findings) {
  int* out;
  CHECK(cudaMalloc(&out, 64 * 4));
  race<<<1, 64>>>(out);
  CHECK(cudaDeviceSynchronize());  // Hardware would not notice.
  fused<<<1, 32>>>(nullptr, 32);
  EXPECT_ERROR(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
  std::puts(ask("flopcuda_vcuda_findings_json"));
}

SCENARIO(unsupported) {
  cudaArray_t array;
  const cudaChannelFormatDesc description = cudaCreateChannelDesc<float>();
  EXPECT_ERROR(cudaMallocArray(&array, &description, 4), cudaErrorNotSupported);
  EXPECT(cudaGetLastError() == cudaErrorNotSupported);
  std::puts(ask("flopcuda_vcuda_unsupported"));
  reinterpret_cast<void (*)()>(dlsym(RTLD_DEFAULT, "flopcuda_vcuda_clear"))();
  std::puts(ask("flopcuda_vcuda_unsupported"));
}
