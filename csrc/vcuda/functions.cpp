// See functions.h.
#include "functions.h"

#include <algorithm>
#include <climits>
#include <cstring>

#include "error.h"
#include "registration.h"

namespace flopcuda::vcuda {
namespace {

constexpr int kWarp = 32;
constexpr int kRegistersOfThread = 255;

int most_threads(const ptxvm::Program& program) {
  return program.max_threads > 0 ? static_cast<int>(std::min<int64_t>(program.max_threads, kMaxBlockThreads))
                                 : kMaxBlockThreads;
}

// ptxas decides on registers. This is what the PTX names, but never so many that a block would not fit.
int registers_of(const ptxvm::Program& program) {
  const int most = std::min(kRegistersOfThread, kRegistersPerProcessor / most_threads(program));
  return std::clamp(program.functions[0].registers, 1, most);
}

cudaFuncAttributes attributes_of(const Kernel& kernel, const Device& device) {
  const ptxvm::Program& program = kernel.program(device);
  cudaFuncAttributes result{};
  result.sharedSizeBytes = static_cast<size_t>(program.static_shared_bytes);
  result.localSizeBytes = static_cast<size_t>(program.functions[0].local_bytes);
  result.maxThreadsPerBlock = most_threads(program);
  result.numRegs = registers_of(program);
  result.ptxVersion = result.binaryVersion = device.architecture.capability;
  result.maxDynamicSharedSizeBytes = static_cast<int>(kernel.dynamic_shared_limit(device));
  result.preferredShmemCarveout = kernel.carveout(device);
  return result;
}

void set_attribute(Kernel& kernel, cudaFuncAttribute attribute, int value, const Device& device) {
  switch (attribute) {
    case cudaFuncAttributeMaxDynamicSharedMemorySize:
      return kernel.set_dynamic_shared_limit(device, value);
    case cudaFuncAttributePreferredSharedMemoryCarveout:
      return kernel.set_carveout(device, value);
    default:
      require(attribute < cudaFuncAttributeMax, cudaErrorInvalidValue);
      fail(cudaErrorNotSupported);  // clusters
  }
}

}  // namespace

// Registers are not what limits it, as nobody knows how many there will be.
int resident_blocks(const Kernel& kernel, int threads, size_t dynamic_shared_bytes, const Device& device) {
  require(threads > 0, cudaErrorInvalidValue);
  const ptxvm::Program& program = kernel.program(device);
  if (threads > most_threads(program)) return 0;
  const Architecture& architecture = device.architecture;
  const int warps = (threads + kWarp - 1) / kWarp;
  const int64_t shared =
      static_cast<int64_t>(dynamic_shared_bytes) + program.static_shared_bytes + kReservedSharedBytes;
  const int64_t by_shared = architecture.shared_per_processor / shared;
  const int64_t by_threads = architecture.threads_per_processor / (warps * kWarp);
  return static_cast<int>(std::min({by_shared, by_threads, int64_t{architecture.blocks_per_processor}}));
}

}  // namespace flopcuda::vcuda

using namespace flopcuda::vcuda;

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  return entry([&] { require_pointer(attributes) = attributes_of(*kernel_of(function), current_device()); });
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  return entry([&] { set_attribute(*kernel_of(function), attribute, value, current_device()); });
}

cudaError_t cudaKernelSetAttributeForDevice(cudaKernel_t kernel, cudaFuncAttribute attribute, int value, int ordinal) {
  return entry([&] { set_attribute(*kernel_of(kernel), attribute, value, device(ordinal)); });
}

cudaError_t cudaFuncSetCacheConfig(const void* function, cudaFuncCache) {
  return entry([&] { kernel_of(function); });
}

cudaError_t cudaFuncSetSharedMemConfig(const void* function, cudaSharedMemConfig) {
  return entry([&] { kernel_of(function); });
}

cudaError_t cudaFuncGetName(const char** name, const void* function) {
  return entry([&] { require_pointer(name) = kernel_of(function)->name.c_str(); });
}

cudaError_t cudaFuncGetParamInfo(const void* function, size_t index, size_t* offset, size_t* size) {
  return entry([&] {
    const auto& slots = kernel_of(function)->program(current_device()).functions[0].parameters;
    require(index < slots.size(), cudaErrorInvalidValue);
    require_pointer(offset) = static_cast<size_t>(slots[index].offset);
    if (size) *size = static_cast<size_t>(slots[index].size);
  });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function, int threads,
                                                          size_t shared_bytes) {
  return entry([&] {
    require_pointer(blocks) = resident_blocks(*kernel_of(function), threads, shared_bytes, current_device());
  });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* function, int threads,
                                                                   size_t shared_bytes, unsigned) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function, threads, shared_bytes);
}

cudaError_t cudaOccupancyAvailableDynamicSMemPerBlock(size_t* bytes, const void* function, int blocks, int threads) {
  return entry([&] {
    require(blocks > 0 && threads > 0, cudaErrorInvalidValue);
    const auto& program = kernel_of(function)->program(current_device());
    const Architecture& architecture = current_device().architecture;
    const int64_t share = architecture.shared_per_processor / blocks - kReservedSharedBytes;
    const int64_t most = std::min<int64_t>(share, architecture.shared_per_block_optin) - program.static_shared_bytes;
    require_pointer(bytes) = static_cast<size_t>(std::max<int64_t>(most, 0));
  });
}
