// libcuda.so.1: the part of the driver that torch and code of its kind calls, on top of the runtime.
//
// A context is the primary one of a device; there are no others.
#include <dlfcn.h>

#include <cstring>
#include <string>

#include "cuda_driver_api.h"

using flopcuda::vcuda::result_of;

namespace {

constexpr int kMostDevices = 64;
char contexts[kMostDevices];  // The address of the device's element is its context.

CUcontext context_of(int device) { return reinterpret_cast<CUcontext>(&contexts[device]); }
int device_of(CUcontext context) { return static_cast<int>(reinterpret_cast<char*>(context) - contexts); }

CUresult check_device(int device) {
  int count = 0;
  const CUresult result = result_of(cudaGetDeviceCount(&count));
  if (result != CUDA_SUCCESS) return result;
  return device >= 0 && device < count ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

// Of a thread that has made another one current, or none.
thread_local bool has_context = true;

CUresult copy_text(char* to, int size, const char* from) {
  if (!to || size <= 0) return CUDA_ERROR_INVALID_VALUE;
  std::strncpy(to, from, static_cast<size_t>(size) - 1);
  to[size - 1] = '\0';
  return CUDA_SUCCESS;
}

void* address(CUdeviceptr pointer) { return reinterpret_cast<void*>(pointer); }

}  // namespace

CUresult cuInit(unsigned flags) { return flags == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }

CUresult cuDriverGetVersion(int* version) { return result_of(cudaDriverGetVersion(version)); }

CUresult cuGetErrorName(CUresult error, const char** name) {
  *name = cudaGetErrorName(static_cast<cudaError_t>(error));
  return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char** sentence) {
  *sentence = cudaGetErrorString(static_cast<cudaError_t>(error));
  return CUDA_SUCCESS;
}

// ---- devices ----

CUresult cuDeviceGetCount(int* count) {
  const CUresult result = result_of(cudaGetDeviceCount(count));
  return result == CUDA_ERROR_NO_DEVICE ? CUDA_SUCCESS : result;
}

CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  *device = ordinal;
  return check_device(ordinal);
}

CUresult cuDeviceGetName(char* name, int size, CUdevice device) {
  cudaDeviceProp properties;
  const CUresult result = result_of(cudaGetDeviceProperties(&properties, device));
  return result == CUDA_SUCCESS ? copy_text(name, size, properties.name) : result;
}

CUresult cuDeviceGetUuid(CUuuid* uuid, CUdevice device) {
  cudaDeviceProp properties;
  const CUresult result = result_of(cudaGetDeviceProperties(&properties, device));
  if (result == CUDA_SUCCESS) std::memcpy(uuid->bytes, properties.uuid.bytes, sizeof uuid->bytes);
  return result;
}

CUresult cuDeviceTotalMem(size_t* bytes, CUdevice device) {
  cudaDeviceProp properties;
  const CUresult result = result_of(cudaGetDeviceProperties(&properties, device));
  if (result == CUDA_SUCCESS) *bytes = properties.totalGlobalMem;
  return result;
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  return result_of(cudaDeviceGetAttribute(value, static_cast<cudaDeviceAttr>(attribute), device));
}

CUresult cuDeviceGetPCIBusId(char* text, int size, CUdevice device) {
  return result_of(cudaDeviceGetPCIBusId(text, size, device));
}

// ---- contexts ----

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  *context = context_of(device);
  return check_device(device);
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device) { return check_device(device); }

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* active) {
  if (flags) *flags = 0;
  if (active) *active = 1;
  return check_device(device);
}

CUresult cuCtxGetCurrent(CUcontext* context) {
  int device = 0;
  const CUresult result = result_of(cudaGetDevice(&device));
  *context = has_context && result == CUDA_SUCCESS ? context_of(device) : nullptr;
  return result;
}

CUresult cuCtxSetCurrent(CUcontext context) {
  has_context = context != nullptr;
  return has_context ? result_of(cudaSetDevice(device_of(context))) : CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice* device) { return result_of(cudaGetDevice(device)); }

CUresult cuCtxSynchronize() { return result_of(cudaDeviceSynchronize()); }

// ---- memory ----

CUresult cuMemAlloc(CUdeviceptr* place, size_t size) {
  void* memory = nullptr;
  const CUresult result = size ? result_of(cudaMalloc(&memory, size)) : CUDA_ERROR_INVALID_VALUE;
  *place = reinterpret_cast<CUdeviceptr>(memory);
  return result;
}

CUresult cuMemFree(CUdeviceptr place) { return result_of(cudaFree(address(place))); }

CUresult cuMemGetInfo(size_t* free, size_t* total) { return result_of(cudaMemGetInfo(free, total)); }

CUresult cuMemcpyHtoD(CUdeviceptr to, const void* from, size_t size) {
  return result_of(cudaMemcpy(address(to), from, size, cudaMemcpyHostToDevice));
}

CUresult cuMemcpyDtoH(void* to, CUdeviceptr from, size_t size) {
  return result_of(cudaMemcpy(to, address(from), size, cudaMemcpyDeviceToHost));
}

CUresult cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, size_t size) {
  return result_of(cudaMemcpy(address(to), address(from), size, cudaMemcpyDeviceToDevice));
}

CUresult cuMemsetD8(CUdeviceptr to, unsigned char value, size_t count) {
  return result_of(cudaMemset(address(to), value, count));
}

CUresult cuPointerGetAttribute(void* data, CUpointer_attribute attribute, CUdeviceptr pointer) {
  cudaPointerAttributes attributes;
  const CUresult result = result_of(cudaPointerGetAttributes(&attributes, address(pointer)));
  if (result != CUDA_SUCCESS) return result;
  if (attributes.type == cudaMemoryTypeUnregistered) return CUDA_ERROR_INVALID_VALUE;
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      *static_cast<CUcontext*>(data) = context_of(attributes.device);
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      *static_cast<unsigned*>(data) = attributes.type == cudaMemoryTypeHost ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
      *static_cast<CUdeviceptr*>(data) = pointer;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
      *static_cast<unsigned*>(data) = attributes.type == cudaMemoryTypeManaged;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      *static_cast<int*>(data) = attributes.device;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_NOT_SUPPORTED;
  }
}

// ---- what else ----

// Nothing is logged: what goes wrong in a kernel is told on standard error.
CUresult cuLogsRegisterCallback(CUlogsCallback, void*, CUlogsCallbackHandle* handle) {
  if (handle) *handle = nullptr;
  return CUDA_SUCCESS;
}

CUresult cuLogsUnregisterCallback(CUlogsCallbackHandle) { return CUDA_SUCCESS; }

CUresult cuGetProcAddress(const char* name, void** function, int, cuuint64_t, CUdriverProcAddressQueryResult* query) {
  static void* const self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  void* found = nullptr;
  for (const char* version : {"_v3", "_v2", ""}) {
    if (!found) found = dlsym(self, (std::string(name) + version).c_str());
  }
  *function = found;
  if (query) *query = found ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  return found ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
