// CUDA's declarations of the driver API, so that what is defined here under these names is exported. All of it is a
// thin layer on the runtime, the reverse of how CUDA has it.
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

inline void* pointer_to(CUdeviceptr address) { return reinterpret_cast<void*>(address); }
inline CUdeviceptr address_of(const void* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

// A context is the primary one of a device; there are no others.
CUcontext context_of(int device);
CUresult check_device(int device);

}  // namespace flopcuda::vcuda
