// Memory.
#include "cuda_driver_api.h"

using namespace flopcuda::vcuda;

CUresult cuMemAlloc(CUdeviceptr* address, size_t size) {
  if (!address || size == 0) return CUDA_ERROR_INVALID_VALUE;
  return result_of(cudaMalloc(reinterpret_cast<void**>(address), size));
}

CUresult cuMemFree(CUdeviceptr address) { return result_of(cudaFree(pointer_to(address))); }

CUresult cuMemAllocHost(void** pointer, size_t size) { return result_of(cudaMallocHost(pointer, size)); }

CUresult cuMemFreeHost(void* pointer) { return result_of(cudaFreeHost(pointer)); }

CUresult cuMemGetInfo(size_t* free, size_t* total) { return result_of(cudaMemGetInfo(free, total)); }

CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t size) {
  return result_of(cudaMemcpy(pointer_to(to), pointer_to(from), size, cudaMemcpyDefault));
}

CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream) {
  return result_of(cudaMemcpyAsync(pointer_to(to), pointer_to(from), size, cudaMemcpyDefault, stream));
}

CUresult cuMemcpyHtoD(CUdeviceptr to, const void* from, size_t size) {
  return result_of(cudaMemcpy(pointer_to(to), from, size, cudaMemcpyHostToDevice));
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t size, CUstream stream) {
  return result_of(cudaMemcpyAsync(pointer_to(to), from, size, cudaMemcpyHostToDevice, stream));
}

CUresult cuMemcpyDtoH(void* to, CUdeviceptr from, size_t size) {
  return result_of(cudaMemcpy(to, pointer_to(from), size, cudaMemcpyDeviceToHost));
}

CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t size, CUstream stream) {
  return result_of(cudaMemcpyAsync(to, pointer_to(from), size, cudaMemcpyDeviceToHost, stream));
}

CUresult cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, size_t size) {
  return result_of(cudaMemcpy(pointer_to(to), pointer_to(from), size, cudaMemcpyDeviceToDevice));
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream) {
  return result_of(cudaMemcpyAsync(pointer_to(to), pointer_to(from), size, cudaMemcpyDeviceToDevice, stream));
}

CUresult cuMemsetD8(CUdeviceptr to, unsigned char value, size_t count) {
  return result_of(cudaMemset(pointer_to(to), value, count));
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
  return result_of(cudaMemsetAsync(pointer_to(to), value, count, stream));
}

CUresult cuPointerGetAttribute(void* data, CUpointer_attribute attribute, CUdeviceptr pointer) {
  if (!data) return CUDA_ERROR_INVALID_VALUE;
  cudaPointerAttributes attributes;
  const CUresult result = result_of(cudaPointerGetAttributes(&attributes, pointer_to(pointer)));
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
