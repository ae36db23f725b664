// CUDA's declarations of the driver API, so that what is defined here under these names is exported.
#pragma once

#pragma GCC visibility push(default)
#include <cuda.h>
#pragma GCC visibility pop
#include <cuda_runtime_api.h>

namespace flopcuda::vcuda {

// The two interfaces number their errors alike. The runtime's own last error is left for the runtime's callers.
inline CUresult result_of(cudaError_t status) {
  if (status != cudaSuccess) cudaGetLastError();
  return static_cast<CUresult>(status);
}

}  // namespace flopcuda::vcuda
