// The driver's functions, as a program gets them from the runtime.
#include <cuda.h>

#include "scenarios.h"

template <class Function>
Function* driver_function(const char* name) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result;
  CHECK(cudaGetDriverEntryPointByVersion(name, &function, 13000, cudaEnableDefault, &result));
  if (result != cudaDriverEntryPointSuccess) stop(__LINE__, name, "is not there");
  return reinterpret_cast<Function*>(function);
}
#define DRIVER(name, ...) expect(driver_function<decltype(name)>(#name)(__VA_ARGS__), CUDA_SUCCESS, __LINE__, #name)
#define DRIVER_ERROR(error, name, ...) \
  expect(driver_function<decltype(name)>(#name)(__VA_ARGS__), error, __LINE__, #name)

inline void expect(CUresult result, CUresult wanted, int line, const char* text) {
  expect(static_cast<cudaError_t>(result), static_cast<cudaError_t>(wanted), line, text);
}

const char* kModule = R"(
.version 8.0
.target sm_80
.address_size 64
.visible .global .u32 bias = 5;
.visible .entry scale(.param .u64 place, .param .u32 factor) {
  .reg .b64 %p; .reg .b32 %x, %y, %f;
  ld.param.u64 %p, [place];
  ld.param.u32 %f, [factor];
  ld.global.u32 %x, [%p];
  ld.global.u32 %y, [bias];
  mad.lo.s32 %x, %x, %f, %y;
  st.global.u32 [%p], %x;
  ret;
})";

SCENARIO(devices_and_contexts) {
  CUdevice device;
  CUcontext context, current;
  int count, value;
  char name[64];
  size_t bytes;
  DRIVER(cuInit, 0);
  DRIVER(cuDeviceGetCount, &count);
  EXPECT(count == 1);
  DRIVER(cuDeviceGet, &device, 0);
  DRIVER_ERROR(CUDA_ERROR_INVALID_DEVICE, cuDeviceGet, &device, 1);
  DRIVER(cuDeviceGetName, name, sizeof name, device);
  EXPECT(std::string(name) == "flopcuda virtual CUDA device, sm_80");
  DRIVER(cuDeviceGetAttribute, &value, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device);
  EXPECT(value == 8);
  DRIVER(cuDeviceTotalMem, &bytes, device);
  DRIVER(cuDevicePrimaryCtxRetain, &context, device);
  DRIVER(cuCtxGetCurrent, &current);
  EXPECT(current == context && bytes > 0);
  DRIVER(cuCtxPushCurrent, nullptr);
  DRIVER(cuCtxGetCurrent, &current);
  EXPECT(current == nullptr);
  DRIVER(cuCtxPopCurrent, &current);
  DRIVER(cuCtxGetCurrent, &current);
  EXPECT(current == context);
}

SCENARIO(modules_and_launches) {
  CUmodule module;
  CUfunction function;
  CUdeviceptr place, bias;
  size_t size;
  DRIVER(cuModuleLoadData, &module, kModule);
  DRIVER(cuModuleGetFunction, &function, module, "scale");
  DRIVER_ERROR(CUDA_ERROR_NOT_FOUND, cuModuleGetFunction, &function, module, "other");
  DRIVER(cuMemAlloc, &place, 4);
  int value = 3, factor = 7;
  DRIVER(cuMemcpyHtoD, place, &value, 4);
  void* parameters[] = {&place, &factor};
  DRIVER(cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr);
  DRIVER(cuModuleGetGlobal, &bias, &size, module, "bias");
  DRIVER(cuMemsetD8, bias, 0, size);

  struct {
    CUdeviceptr place;
    int factor;
  } buffer{place, 2};
  size_t bytes = sizeof buffer;
  void* extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &buffer, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END};
  DRIVER(cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, extra);
  DRIVER(cuMemcpyDtoH, &value, place, 4);
  EXPECT(value == (3 * 7 + 5) * 2);
  int threads;
  DRIVER(cuFuncGetAttribute, &threads, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, function);
  EXPECT(threads == 1024);
  DRIVER(cuModuleUnload, module);
  DRIVER_ERROR(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH, &value, bias, 4);
}

SCENARIO(what_is_not_there) {
  CUcontext context;
  DRIVER_ERROR(CUDA_ERROR_NOT_SUPPORTED, cuCtxCreate, &context, nullptr, 0, 0);
  EXPECT(cudaPeekAtLastError() == cudaSuccess);
  void* function;
  cudaDriverEntryPointQueryResult result;
  CHECK(cudaGetDriverEntryPointByVersion("cuNothing", &function, 13000, cudaEnableDefault, &result));
  EXPECT(result == cudaDriverEntryPointSymbolNotFound && function == nullptr);
  const char* text;
  DRIVER(cuGetErrorName, CUDA_ERROR_OUT_OF_MEMORY, &text);
  EXPECT(std::string(text) == "CUDA_ERROR_OUT_OF_MEMORY");
  DRIVER(cuGetErrorString, CUDA_ERROR_OUT_OF_MEMORY, &text);
  EXPECT(std::string(text) == "out of memory");
  DRIVER_ERROR(CUDA_ERROR_INVALID_VALUE, cuGetErrorName, static_cast<CUresult>(12345), &text);
  EXPECT(text == nullptr);
}
