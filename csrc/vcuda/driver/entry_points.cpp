// Functions by name, and logs.
#include <dlfcn.h>

#include <string>

#include "cuda_driver_api.h"

CUresult cuGetProcAddress(const char* name, void** function, int, cuuint64_t, CUdriverProcAddressQueryResult* query) {
  if (!name || !function) return CUDA_ERROR_INVALID_VALUE;
  static void* const self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  void* found = nullptr;
  for (const char* version : {"_v3", "_v2", ""}) {
    if (!found) found = dlsym(self, (std::string(name) + version).c_str());
  }
  *function = found;
  if (query) *query = found ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  return found ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

// Nothing is logged: what goes wrong in a kernel is told on standard error.
CUresult cuLogsRegisterCallback(CUlogsCallback, void*, CUlogsCallbackHandle* handle) {
  if (handle) *handle = nullptr;
  return CUDA_SUCCESS;
}

CUresult cuLogsUnregisterCallback(CUlogsCallbackHandle) { return CUDA_SUCCESS; }
