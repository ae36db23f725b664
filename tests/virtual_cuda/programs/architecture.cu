// Which of several compilations of a kernel runs.
#include "scenarios.h"

__global__ void tell(int* out) {
#ifdef __CUDA_ARCH__
  *out = __CUDA_ARCH__ / 10;
#endif
}

SCENARIO(of_the_ptx) {
  const Array<int> out({0});
  tell<<<1, 1>>>(out.data);
  const cudaError_t status = cudaGetLastError();
  if (status == cudaSuccess) {
    std::printf("%d\n", out.get()[0]);
  } else {
    std::puts(cudaGetErrorName(status));
  }
}
