// See launch.h. The only host code here that includes CUDA.
#include <cuda_runtime_api.h>

#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>

#include "cuda/launch.h"
#include "cuda/params.h"
#include "cuda/tiles.h"

namespace flopcuda::cuda {

#define FLOPCUDA_DECLARE_PAIR(kernel, Params)                        \
  extern "C" __global__ void kernel(const __grid_constant__ Params); \
  extern "C" __global__ void kernel##_count_zero(const __grid_constant__ Params);
#define FLOPCUDA_DECLARE(kernel, Params) \
  FLOPCUDA_DECLARE_PAIR(kernel, Params)  \
  extern "C" __global__ void kernel##_split(const __grid_constant__ Params);
#define FLOPCUDA_DECLARE_CONV(kernel, ...) FLOPCUDA_DECLARE(kernel, ConvParams)
#define FLOPCUDA_DECLARE_DIRECT(kernel, ...) FLOPCUDA_DECLARE_PAIR(kernel, ConvParams)
#define FLOPCUDA_DECLARE_LINEAR(kernel, ...) FLOPCUDA_DECLARE(kernel, LinearParams)
FLOPCUDA_CONV_KERNELS(FLOPCUDA_DECLARE_CONV)
FLOPCUDA_DIRECT_KERNELS(FLOPCUDA_DECLARE_DIRECT)
FLOPCUDA_FEW_OUTPUTS_KERNELS(FLOPCUDA_DECLARE_CONV)
FLOPCUDA_CONV_TENSOR_KERNELS(FLOPCUDA_DECLARE_CONV)
FLOPCUDA_LINEAR_KERNELS(FLOPCUDA_DECLARE_LINEAR)
FLOPCUDA_LINEAR_TENSOR_KERNELS(FLOPCUDA_DECLARE_LINEAR)

namespace {

struct KernelFunction {
  std::string_view name;
  const void* function;
};

#define FLOPCUDA_FUNCTIONS(kernel, ...)             \
  {#kernel, reinterpret_cast<const void*>(kernel)}, \
      {#kernel "_count_zero", reinterpret_cast<const void*>(kernel##_count_zero)},

#define FLOPCUDA_SPLIT_FUNCTIONS(kernel, ...) \
  FLOPCUDA_FUNCTIONS(kernel){#kernel "_split", reinterpret_cast<const void*>(kernel##_split)},

const void* find_function(std::string_view name) {
  static const KernelFunction functions[] = {
      FLOPCUDA_CONV_KERNELS(FLOPCUDA_SPLIT_FUNCTIONS)           //
      FLOPCUDA_DIRECT_KERNELS(FLOPCUDA_FUNCTIONS)               //
      FLOPCUDA_FEW_OUTPUTS_KERNELS(FLOPCUDA_SPLIT_FUNCTIONS)    //
      FLOPCUDA_CONV_TENSOR_KERNELS(FLOPCUDA_SPLIT_FUNCTIONS)    //
      FLOPCUDA_LINEAR_KERNELS(FLOPCUDA_SPLIT_FUNCTIONS)         //
      FLOPCUDA_LINEAR_TENSOR_KERNELS(FLOPCUDA_SPLIT_FUNCTIONS)  //
  };
  for (const KernelFunction& candidate : functions) {
    if (candidate.name == name) return candidate.function;
  }
  throw std::runtime_error("flopcuda has no CUDA kernel named " + std::string(name));
}

// what: "flopcuda_conv_f32_direct: the launch"
void check(cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // Reported here; the next CUDA call of somebody else must not find it.
  throw std::runtime_error(what + " failed: " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")");
}

int get_attribute(cudaDeviceAttr attribute, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, attribute, device), "asking for an attribute of a device");
  return value;
}

DeviceProperties ask_properties(int device) {
  cudaDeviceProp named;
  check(cudaGetDeviceProperties(&named, device), "asking for the name of a device");
  DeviceFacts facts;
  facts.name = named.name;
  facts.capability = 10 * named.major + named.minor;
  facts.multiprocessors = named.multiProcessorCount;
  // Clocks are in thousands of cycles a second. In one of its own, memory moves two words of its bus.
  facts.hertz = 1e3 * get_attribute(cudaDevAttrClockRate, device);
  const double memory_hertz = 1e3 * get_attribute(cudaDevAttrMemoryClockRate, device);
  facts.bandwidth = 2 * memory_hertz * named.memoryBusWidth / 8;
  DeviceProperties properties = properties_of(facts);
  for (const KernelInfo& kernel : kernels()) {
    int blocks = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, find_function(kernel.name), kernel.threads, 0),
          std::string(kernel.name) + ": asking for its occupancy");
    properties.resident_blocks.push_back(blocks);
  }
  return properties;
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
  check(status, std::string(plan.kernel) + ": the launch");
}

const DeviceProperties& device_properties() {
  static std::mutex mutex;
  static std::map<int, DeviceProperties> known;  // whose entries stay where they are
  int device = 0;
  check(cudaGetDevice(&device), "asking for the current device");
  const std::lock_guard lock(mutex);
  const auto found = known.find(device);
  return found != known.end() ? found->second : known.emplace(device, ask_properties(device)).first->second;
}

}  // namespace flopcuda::cuda
