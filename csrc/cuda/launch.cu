// See launch.h. The only host code here that includes CUDA.
#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>
#include <string_view>

#include "cuda/launch.h"
#include "cuda/params.h"
#include "cuda/tiles.h"

namespace flopcuda::cuda {

#define FLOPCUDA_DECLARE_TILE(tile, ...)                                                             \
  extern "C" __global__ void FLOPCUDA_CONV2D(tile)(const __grid_constant__ Conv2dParams);            \
  extern "C" __global__ void FLOPCUDA_CONV2D_COUNT_ZERO(tile)(const __grid_constant__ Conv2dParams); \
  extern "C" __global__ void FLOPCUDA_LINEAR(tile)(const __grid_constant__ LinearParams);            \
  extern "C" __global__ void FLOPCUDA_LINEAR_COUNT_ZERO(tile)(const __grid_constant__ LinearParams);
FLOPCUDA_GEMM_TILES(FLOPCUDA_DECLARE_TILE)
extern "C" __global__ void FLOPCUDA_CONV2D(direct)(const __grid_constant__ Conv2dParams);
extern "C" __global__ void FLOPCUDA_CONV2D_COUNT_ZERO(direct)(const __grid_constant__ Conv2dParams);

namespace {

struct KernelFunction {
  std::string_view name;
  const void* function;
};

#define FLOPCUDA_FUNCTION(entry) {FLOPCUDA_NAME(entry), reinterpret_cast<const void*>(entry)},
#define FLOPCUDA_TILE_FUNCTIONS(tile, ...)            \
  FLOPCUDA_FUNCTION(FLOPCUDA_CONV2D(tile))            \
  FLOPCUDA_FUNCTION(FLOPCUDA_CONV2D_COUNT_ZERO(tile)) \
  FLOPCUDA_FUNCTION(FLOPCUDA_LINEAR(tile))            \
  FLOPCUDA_FUNCTION(FLOPCUDA_LINEAR_COUNT_ZERO(tile))

const void* find_function(std::string_view name) {
  static const KernelFunction functions[] = {
      FLOPCUDA_GEMM_TILES(FLOPCUDA_TILE_FUNCTIONS)           //
      FLOPCUDA_FUNCTION(FLOPCUDA_CONV2D(direct))             //
      FLOPCUDA_FUNCTION(FLOPCUDA_CONV2D_COUNT_ZERO(direct))  //
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
