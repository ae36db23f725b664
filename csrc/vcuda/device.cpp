// Devices: which there are, what they say of themselves, limits, access among them.
#include "device.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <thread>

#include "address_space.h"
#include "capture.h"
#include "error.h"
#include "module.h"
#include "settings.h"
#include "streams.h"

namespace flopcuda::vcuda {
namespace {

thread_local int current_ordinal = 0;

constexpr int kClockKilohertz = 1'000'000;  // of nothing that exists; only so that nobody divides by zero
constexpr int kConstantBytes = 65536;
constexpr int kCacheBytes = 4 << 20;

std::string name_of(const Device& device) {
  return "flopcuda virtual CUDA device, sm_" + std::to_string(device.architecture.capability);
}

std::string pci_address(const Device& device) {
  char text[16];
  std::snprintf(text, sizeof text, "0000:%02x:00.0", device.ordinal + 1);
  return text;
}

cudaDeviceProp properties_of(const Device& device) {
  const Architecture& architecture = device.architecture;
  cudaDeviceProp p{};
  std::strncpy(p.name, name_of(device).c_str(), sizeof p.name - 1);
  std::snprintf(p.uuid.bytes, sizeof p.uuid.bytes, "flopcuda vcuda%d", device.ordinal);
  p.totalGlobalMem = settings().memory;
  p.sharedMemPerBlock = kSharedBytesPerBlock;
  p.regsPerBlock = kRegistersPerProcessor;
  p.warpSize = 32;
  p.memPitch = INT32_MAX;
  p.maxThreadsPerBlock = kMaxBlockThreads;
  std::copy_n(kMaxBlockExtent, 3, p.maxThreadsDim);
  std::copy_n(kMaxGridExtent, 3, p.maxGridSize);
  p.totalConstMem = kConstantBytes;
  p.major = architecture.capability / 10;
  p.minor = architecture.capability % 10;
  p.textureAlignment = 512;
  p.texturePitchAlignment = 32;
  p.multiProcessorCount = processor_count();
  p.canMapHostMemory = 1;
  p.surfaceAlignment = 512;
  p.concurrentKernels = 1;
  p.pciBusID = device.ordinal + 1;
  p.unifiedAddressing = 1;
  p.memoryBusWidth = 64;
  p.l2CacheSize = kCacheBytes;
  p.maxThreadsPerMultiProcessor = architecture.threads_per_processor;
  p.streamPrioritiesSupported = 1;
  p.globalL1CacheSupported = 1;
  p.localL1CacheSupported = 1;
  p.sharedMemPerMultiprocessor = static_cast<size_t>(architecture.shared_per_processor);
  p.regsPerMultiprocessor = kRegistersPerProcessor;
  p.managedMemory = 1;
  p.multiGpuBoardGroupID = device.ordinal;
  p.concurrentManagedAccess = 1;
  p.cooperativeLaunch = 1;
  p.sharedMemPerBlockOptin = static_cast<size_t>(architecture.shared_per_block_optin);
  p.directManagedMemAccessFromHost = 1;
  p.maxBlocksPerMultiProcessor = architecture.blocks_per_processor;
  p.reservedSharedMemPerBlock = kReservedSharedBytes;
  p.hostRegisterSupported = 1;
  p.memoryPoolsSupported = 1;
  return p;
}

// Attributes of the device as cudaDeviceGetAttribute numbers them; those not here are features it hasn't.
std::map<cudaDeviceAttr, int> attributes_of(const Device& device) {
  const cudaDeviceProp p = properties_of(device);
  return {
      {cudaDevAttrMaxThreadsPerBlock, p.maxThreadsPerBlock},
      {cudaDevAttrMaxBlockDimX, p.maxThreadsDim[0]},
      {cudaDevAttrMaxBlockDimY, p.maxThreadsDim[1]},
      {cudaDevAttrMaxBlockDimZ, p.maxThreadsDim[2]},
      {cudaDevAttrMaxGridDimX, p.maxGridSize[0]},
      {cudaDevAttrMaxGridDimY, p.maxGridSize[1]},
      {cudaDevAttrMaxGridDimZ, p.maxGridSize[2]},
      {cudaDevAttrMaxSharedMemoryPerBlock, static_cast<int>(p.sharedMemPerBlock)},
      {cudaDevAttrTotalConstantMemory, static_cast<int>(p.totalConstMem)},
      {cudaDevAttrWarpSize, p.warpSize},
      {cudaDevAttrMaxPitch, static_cast<int>(p.memPitch)},
      {cudaDevAttrMaxRegistersPerBlock, p.regsPerBlock},
      {cudaDevAttrClockRate, kClockKilohertz},
      {cudaDevAttrTextureAlignment, static_cast<int>(p.textureAlignment)},
      {cudaDevAttrMultiProcessorCount, p.multiProcessorCount},
      {cudaDevAttrCanMapHostMemory, p.canMapHostMemory},
      {cudaDevAttrComputeMode, cudaComputeModeDefault},
      {cudaDevAttrSurfaceAlignment, static_cast<int>(p.surfaceAlignment)},
      {cudaDevAttrConcurrentKernels, p.concurrentKernels},
      {cudaDevAttrPciBusId, p.pciBusID},
      {cudaDevAttrMemoryClockRate, kClockKilohertz},
      {cudaDevAttrGlobalMemoryBusWidth, p.memoryBusWidth},
      {cudaDevAttrL2CacheSize, p.l2CacheSize},
      {cudaDevAttrMaxThreadsPerMultiProcessor, p.maxThreadsPerMultiProcessor},
      {cudaDevAttrUnifiedAddressing, p.unifiedAddressing},
      {cudaDevAttrTexturePitchAlignment, static_cast<int>(p.texturePitchAlignment)},
      {cudaDevAttrComputeCapabilityMajor, p.major},
      {cudaDevAttrComputeCapabilityMinor, p.minor},
      {cudaDevAttrStreamPrioritiesSupported, p.streamPrioritiesSupported},
      {cudaDevAttrGlobalL1CacheSupported, p.globalL1CacheSupported},
      {cudaDevAttrLocalL1CacheSupported, p.localL1CacheSupported},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, static_cast<int>(p.sharedMemPerMultiprocessor)},
      {cudaDevAttrMaxRegistersPerMultiprocessor, p.regsPerMultiprocessor},
      {cudaDevAttrManagedMemory, p.managedMemory},
      {cudaDevAttrMultiGpuBoardGroupID, p.multiGpuBoardGroupID},
      {cudaDevAttrConcurrentManagedAccess, p.concurrentManagedAccess},
      {cudaDevAttrCanUseHostPointerForRegisteredMem, 1},
      {cudaDevAttrCooperativeLaunch, p.cooperativeLaunch},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, static_cast<int>(p.sharedMemPerBlockOptin)},
      {cudaDevAttrHostRegisterSupported, p.hostRegisterSupported},
      {cudaDevAttrDirectManagedMemAccessFromHost, p.directManagedMemAccessFromHost},
      {cudaDevAttrMaxBlocksPerMultiprocessor, p.maxBlocksPerMultiProcessor},
      {cudaDevAttrReservedSharedMemoryPerBlock, static_cast<int>(p.reservedSharedMemPerBlock)},
      {cudaDevAttrMemoryPoolsSupported, p.memoryPoolsSupported},
  };
}

int attribute_of(const Device& device, cudaDeviceAttr attribute) {
  require(attribute > 0 && attribute < cudaDevAttrMax, cudaErrorInvalidValue);
  const std::map<cudaDeviceAttr, int> known = attributes_of(device);
  const auto found = known.find(attribute);
  return found == known.end() ? 0 : found->second;
}

// The limits that can be set; the machine itself keeps to none of them.
struct Limits {
  std::mutex mutex;
  std::map<cudaLimit, size_t> values{{cudaLimitStackSize, 64 << 10},
                                     {cudaLimitPrintfFifoSize, 1 << 20},
                                     {cudaLimitMallocHeapSize, 8 << 20},
                                     {cudaLimitMaxL2FetchGranularity, 64},
                                     {cudaLimitPersistingL2CacheSize, 0}};

  size_t& at(cudaLimit limit) {
    const auto found = values.find(limit);
    require(found != values.end(), cudaErrorUnsupportedLimit);
    return found->second;
  }
};

}  // namespace

Device::Device(int ordinal_) : ordinal(ordinal_), architecture(*find_architecture(settings().architecture)) {}

const std::vector<std::unique_ptr<Device>>& devices() {
  static const auto& instance = *[] {
    auto* made = new std::vector<std::unique_ptr<Device>>;
    for (int i = 0; i < settings().devices; ++i) made->push_back(std::make_unique<Device>(i));
    return made;
  }();
  return instance;
}

Device& device(int ordinal) {
  require(ordinal >= 0 && ordinal < static_cast<int>(devices().size()),
          devices().empty() ? cudaErrorNoDevice : cudaErrorInvalidDevice);
  return *devices()[static_cast<size_t>(ordinal)];
}

Device& current_device() { return device(current_ordinal); }

int processor_count() {
  const int threads = settings().threads;
  return threads > 0 ? threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

std::mutex& execution_mutex() { return immortal<std::mutex>(); }

void raise_fault(Device& device, cudaError_t fault) {
  device.fault = fault;
  fail(fault);
}

void reset(Device& device) {
  const std::lock_guard<std::mutex> lock(execution_mutex());
  unload_modules(device);
  address_space().release_all(device.ordinal);
  device.fault = cudaSuccess;
}

}  // namespace flopcuda::vcuda

using namespace flopcuda::vcuda;

cudaError_t cudaGetDeviceCount(int* count) {
  return entry_despite_fault([&] {
    require_pointer(count) = static_cast<int>(devices().size());
    require(*count > 0, cudaErrorNoDevice);
  });
}

cudaError_t cudaGetDevice(int* ordinal) {
  return entry_despite_fault([&] { require_pointer(ordinal) = current_device().ordinal; });
}

cudaError_t cudaSetDevice(int ordinal) {
  return entry_despite_fault([&] { current_ordinal = device(ordinal).ordinal; });
}

cudaError_t cudaInitDevice(int ordinal, unsigned, unsigned) {
  return entry([&] { device(ordinal); });
}

cudaError_t cudaSetValidDevices(int* ordinals, int count) {
  return entry([&] {
    for (int i = 0; i < count; ++i) device(ordinals[i]);
  });
}

cudaError_t cudaChooseDevice(int* ordinal, const cudaDeviceProp*) {
  return entry([&] { require_pointer(ordinal) = 0; });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int ordinal) {
  return entry([&] { require_pointer(properties) = properties_of(device(ordinal)); });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int ordinal) {
  return entry([&] { require_pointer(value) = attribute_of(device(ordinal), attribute); });
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int size, int ordinal) {
  return entry([&] {
    const std::string address = pci_address(device(ordinal));
    require(text && size > static_cast<int>(address.size()), cudaErrorInvalidValue);
    std::strcpy(text, address.c_str());
  });
}

cudaError_t cudaDeviceGetByPCIBusId(int* ordinal, const char* text) {
  return entry([&] {
    require(ordinal && text, cudaErrorInvalidValue);
    const auto found =
        std::find_if(devices().begin(), devices().end(), [&](const auto& d) { return pci_address(*d) == text; });
    require(found != devices().end(), cudaErrorInvalidDevice);
    *ordinal = (*found)->ordinal;
  });
}

cudaError_t cudaSetDeviceFlags(unsigned flags) {
  return entry([&] { current_device().flags = flags | cudaDeviceMapHost; });
}

cudaError_t cudaGetDeviceFlags(unsigned* flags) {
  return entry([&] { require_pointer(flags) = current_device().flags; });
}

cudaError_t cudaDeviceSynchronize() {
  return entry([] { forbid_while_capturing(); });
}

cudaError_t cudaDeviceReset() {
  return entry_despite_fault([] { reset(current_device()); });
}

cudaError_t cudaDriverGetVersion(int* version) {
  return entry_despite_fault([&] { require_pointer(version) = CUDART_VERSION; });
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  return entry_despite_fault([&] { require_pointer(version) = CUDART_VERSION; });
}

cudaError_t cudaDeviceGetLimit(size_t* value, cudaLimit limit) {
  return entry([&] {
    Limits& limits = immortal<Limits>();
    const std::lock_guard<std::mutex> lock(limits.mutex);
    require_pointer(value) = limits.at(limit);
  });
}

cudaError_t cudaDeviceSetLimit(cudaLimit limit, size_t value) {
  return entry([&] {
    Limits& limits = immortal<Limits>();
    const std::lock_guard<std::mutex> lock(limits.mutex);
    limits.at(limit) = value;
  });
}

cudaError_t cudaDeviceGetCacheConfig(cudaFuncCache* config) {
  return entry([&] { require_pointer(config) = cudaFuncCachePreferNone; });
}

cudaError_t cudaDeviceSetCacheConfig(cudaFuncCache) {
  return entry([] {});
}

cudaError_t cudaDeviceGetSharedMemConfig(cudaSharedMemConfig* config) {
  return entry([&] { require_pointer(config) = cudaSharedMemBankSizeFourByte; });
}

cudaError_t cudaDeviceSetSharedMemConfig(cudaSharedMemConfig) {
  return entry([] {});
}

cudaError_t cudaCtxResetPersistingL2Cache() {
  return entry([] {});
}

// ---- access among devices ----

cudaError_t cudaDeviceCanAccessPeer(int* answer, int ordinal, int peer) {
  return entry([&] { require_pointer(answer) = device(ordinal).ordinal != device(peer).ordinal; });
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags) {
  return entry([&] {
    require(flags == 0, cudaErrorInvalidValue);
    require(device(peer).ordinal != current_device().ordinal, cudaErrorInvalidDevice);
    const std::lock_guard<std::mutex> lock(execution_mutex());
    require(address_space().grant_access(current_device().ordinal, peer), cudaErrorPeerAccessAlreadyEnabled);
  });
}

cudaError_t cudaDeviceDisablePeerAccess(int peer) {
  return entry([&] {
    device(peer);
    const std::lock_guard<std::mutex> lock(execution_mutex());
    require(address_space().revoke_access(current_device().ordinal, peer), cudaErrorPeerAccessNotEnabled);
  });
}

cudaError_t cudaDeviceGetP2PAttribute(int* value, cudaDeviceP2PAttr attribute, int from, int to) {
  return entry([&] {
    require(device(from).ordinal != device(to).ordinal, cudaErrorInvalidDevice);
    require_pointer(value) =
        attribute == cudaDevP2PAttrAccessSupported || attribute == cudaDevP2PAttrNativeAtomicSupported;
  });
}

cudaError_t cudaProfilerStart() {
  return entry([] {});
}

cudaError_t cudaProfilerStop() {
  return entry([] {});
}
