// Functions of the driver, by name, for callers of the runtime. The driver is loaded for them only.
#include <dlfcn.h>

#include <string>

#include "error.h"

namespace flopcuda::vcuda {
namespace {

// The one that was loaded, or the one that lies beside this library.
void* load_driver() {
  if (void* loaded = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD)) return loaded;
  Dl_info self;
  dladdr(reinterpret_cast<const void*>(&load_driver), &self);
  const std::string path(self.dli_fname);
  return dlopen((path.substr(0, path.rfind('/') + 1) + "libcuda.so.1").c_str(), RTLD_NOW);
}

// cuGetProcAddress; its result is a CUresult, where 0 is success.
using GetProcAddress = int (*)(const char* name, void** function, int version, uint64_t flags, void* query);

GetProcAddress get_proc_address() {
  static const auto function = [] {
    void* const driver = load_driver();
    return driver ? reinterpret_cast<GetProcAddress>(dlsym(driver, "cuGetProcAddress_v2")) : nullptr;
  }();
  require(function != nullptr, cudaErrorInsufficientDriver);
  return function;
}

}  // namespace
}  // namespace flopcuda::vcuda

using namespace flopcuda::vcuda;

cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned version,
                                             unsigned long long flags, cudaDriverEntryPointQueryResult* query) {
  return entry_despite_fault([&] {
    require(name && function, cudaErrorInvalidValue);
    const bool found = get_proc_address()(name, function, static_cast<int>(version), flags, nullptr) == 0;
    if (query) *query = found ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  });
}

// Older code's form.
cudaError_t cudaGetDriverEntryPoint(const char* name, void** function, unsigned long long flags,
                                    cudaDriverEntryPointQueryResult* query) {
  return cudaGetDriverEntryPointByVersion(name, function, CUDART_VERSION, flags, query);
}
