// Initialisation, errors, devices and their primary contexts.
#include <cstring>
#include <vector>

#include "cuda_driver_api.h"

namespace flopcuda::vcuda {
namespace {

constexpr int kMostDevices = 64;
char contexts[kMostDevices];  // The address of a device's element is its context.

int device_of(CUcontext context) { return static_cast<int>(reinterpret_cast<char*>(context) - contexts); }

// Null for what is no result.
const char* name_of(CUresult result) {
  switch (result) {
#define VCUDA_RESULT(name) \
  case name:               \
    return #name;
#include "result_names.inc"
#undef VCUDA_RESULT
    default:
      return nullptr;
  }
}

// cuCtxSetCurrent(nullptr) leaves a thread without a context; the runtime knows no such state.
thread_local bool has_context = true;
thread_local std::vector<CUcontext> pushed;

CUcontext current_context() {
  int device = 0;
  return has_context && cudaGetDevice(&device) == cudaSuccess ? context_of(device) : nullptr;
}

CUresult make_current(CUcontext context) {
  has_context = context != nullptr;
  return has_context ? result_of(cudaSetDevice(device_of(context))) : CUDA_SUCCESS;
}

template <class Use>
CUresult with_properties(CUdevice device, Use use) {
  cudaDeviceProp properties;
  const CUresult result = result_of(cudaGetDeviceProperties(&properties, device));
  if (result == CUDA_SUCCESS) use(properties);
  return result;
}

}  // namespace

CUcontext context_of(int device) { return reinterpret_cast<CUcontext>(&contexts[device]); }

CUresult check_device(int device) {
  int count = 0;
  const CUresult result = result_of(cudaGetDeviceCount(&count));
  if (result != CUDA_SUCCESS) return result;
  return device >= 0 && device < count ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

}  // namespace flopcuda::vcuda

using namespace flopcuda::vcuda;

CUresult cuInit(unsigned flags) {
  int count = 0;
  return flags == 0 ? result_of(cudaGetDeviceCount(&count)) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuDriverGetVersion(int* version) { return result_of(cudaDriverGetVersion(version)); }

CUresult cuGetErrorName(CUresult error, const char** name) {
  if (!name) return CUDA_ERROR_INVALID_VALUE;
  *name = name_of(error);
  return *name ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// The sentences are the runtime's.
CUresult cuGetErrorString(CUresult error, const char** sentence) {
  if (!sentence) return CUDA_ERROR_INVALID_VALUE;
  *sentence = name_of(error) ? cudaGetErrorString(static_cast<cudaError_t>(error)) : nullptr;
  return *sentence ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// ---- devices ----

CUresult cuDeviceGetCount(int* count) {
  const CUresult result = result_of(cudaGetDeviceCount(count));
  return result == CUDA_ERROR_NO_DEVICE ? CUDA_SUCCESS : result;
}

CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  if (!device) return CUDA_ERROR_INVALID_VALUE;
  const CUresult result = check_device(ordinal);
  if (result == CUDA_SUCCESS) *device = ordinal;
  return result;
}

CUresult cuDeviceGetName(char* name, int size, CUdevice device) {
  if (!name || size <= 0) return CUDA_ERROR_INVALID_VALUE;
  return with_properties(device, [&](const cudaDeviceProp& properties) {
    std::strncpy(name, properties.name, static_cast<size_t>(size) - 1);
    name[size - 1] = '\0';
  });
}

CUresult cuDeviceGetUuid(CUuuid* uuid, CUdevice device) {
  if (!uuid) return CUDA_ERROR_INVALID_VALUE;
  return with_properties(device, [&](const cudaDeviceProp& properties) {
    std::memcpy(uuid->bytes, properties.uuid.bytes, sizeof uuid->bytes);
  });
}

CUresult cuDeviceTotalMem(size_t* bytes, CUdevice device) {
  if (!bytes) return CUDA_ERROR_INVALID_VALUE;
  return with_properties(device, [&](const cudaDeviceProp& properties) { *bytes = properties.totalGlobalMem; });
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  return result_of(cudaDeviceGetAttribute(value, static_cast<cudaDeviceAttr>(attribute), device));
}

CUresult cuDeviceGetPCIBusId(char* text, int size, CUdevice device) {
  return result_of(cudaDeviceGetPCIBusId(text, size, device));
}

// ---- contexts ----

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  if (!context) return CUDA_ERROR_INVALID_VALUE;
  const CUresult result = check_device(device);
  if (result == CUDA_SUCCESS) *context = context_of(device);
  return result;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device) { return check_device(device); }

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* active) {
  if (flags) *flags = 0;
  if (active) *active = 1;
  return check_device(device);
}

CUresult cuCtxGetCurrent(CUcontext* context) {
  if (!context) return CUDA_ERROR_INVALID_VALUE;
  *context = current_context();
  return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context) { return make_current(context); }

CUresult cuCtxPushCurrent(CUcontext context) {
  pushed.push_back(current_context());
  return make_current(context);
}

CUresult cuCtxPopCurrent(CUcontext* context) {
  if (pushed.empty()) return CUDA_ERROR_INVALID_CONTEXT;
  if (context) *context = current_context();
  const CUcontext before = pushed.back();
  pushed.pop_back();
  return make_current(before);
}

CUresult cuCtxGetDevice(CUdevice* device) {
  return has_context ? result_of(cudaGetDevice(device)) : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuCtxSynchronize() { return result_of(cudaDeviceSynchronize()); }
