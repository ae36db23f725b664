// See launch.h. The only host code here that includes CUDA.
#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>
#include <string_view>

#include "cuda/launch.h"
#include "cuda/params.h"
#include "cuda/tiles.h"

namespace flopcuda::cuda {

#define FLOPCUDA_DECLARE_CONV(kernel, ...)                               \
  extern "C" __global__ void kernel(const __grid_constant__ ConvParams); \
  extern "C" __global__ void kernel##_count_zero(const __grid_constant__ ConvParams);
#define FLOPCUDA_DECLARE_LINEAR(kernel, ...)                               \
  extern "C" __global__ void kernel(const __grid_constant__ LinearParams); \
  extern "C" __global__ void kernel##_count_zero(const __grid_constant__ LinearParams);
FLOPCUDA_CONV_KERNELS(FLOPCUDA_DECLARE_CONV)
FLOPCUDA_DIRECT_KERNELS(FLOPCUDA_DECLARE_CONV)
FLOPCUDA_LINEAR_KERNELS(FLOPCUDA_DECLARE_LINEAR)
#define FLOPCUDA_DECLARE_TENSOR(kernel, ...) extern "C" __global__ void kernel(const __grid_constant__ LinearParams);
FLOPCUDA_TENSOR_KERNELS(FLOPCUDA_DECLARE_TENSOR)

namespace {

struct KernelFunction {
  std::string_view name;
  const void* function;
};

#define FLOPCUDA_FUNCTIONS(kernel, ...)             \
  {#kernel, reinterpret_cast<const void*>(kernel)}, \
      {#kernel "_count_zero", reinterpret_cast<const void*>(kernel##_count_zero)},

#define FLOPCUDA_TENSOR_FUNCTION(kernel, ...) {#kernel, reinterpret_cast<const void*>(kernel)},

const void* find_function(std::string_view name) {
  static const KernelFunction functions[] = {
      FLOPCUDA_CONV_KERNELS(FLOPCUDA_FUNCTIONS)          //
      FLOPCUDA_DIRECT_KERNELS(FLOPCUDA_FUNCTIONS)        //
      FLOPCUDA_LINEAR_KERNELS(FLOPCUDA_FUNCTIONS)        //
      FLOPCUDA_TENSOR_KERNELS(FLOPCUDA_TENSOR_FUNCTION)  //
  };
  for (const KernelFunction& candidate : functions) {
    if (candidate.name == name) return candidate.function;
  }
  throw std::runtime_error("flopcuda has no CUDA kernel named " + std::string(name));
}

void check_launch(cudaError_t status, const char* kernel) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // Reported here; the next CUDA call of somebody else must not find it.
  throw std::runtime_error(std::string(kernel) + ": the launch failed: " + cudaGetErrorString(status) + " (" +
                           cudaGetErrorName(status) + ")");
}

dim3 to_cuda(const Dim3& extent) { return dim3(extent.x, extent.y, extent.z); }

}  // namespace

void launch(const LaunchPlan& plan, void* stream) {
  if (plan.grid.x == 0) return;
  const void* const function = find_function(plan.kernel);
  // A parameter is passed by address and copied during the call; cudaLaunchKernel only lacks the const.
  void* arguments[] = {const_cast<std::byte*>(plan.parameters.data())};
  const cudaError_t status = cudaLaunchKernel(function, to_cuda(plan.grid), to_cuda(plan.block), arguments,
                                              plan.shared_bytes, static_cast<cudaStream_t>(stream));
  check_launch(status, plan.kernel);
}

}  // namespace flopcuda::cuda
