// Functions of the driver, by name, for callers of the runtime.
#include <dlfcn.h>

#include <string>

#include "error.h"

namespace flopcuda::vcuda {
namespace {

// The one that was loaded, or the one that lies beside this library.
void* driver() {
  static void* const library = [] {
    void* loaded = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    if (loaded) return loaded;
    Dl_info self;
    dladdr(reinterpret_cast<const void*>(&driver), &self);
    const std::string path(self.dli_fname);
    return dlopen((path.substr(0, path.rfind('/') + 1) + "libcuda.so.1").c_str(), RTLD_NOW);
  }();
  return library;
}

void* find(const char* name) {
  for (const char* version : {"_v3", "_v2", ""}) {
    if (void* function = dlsym(driver(), (std::string(name) + version).c_str())) return function;
  }
  return nullptr;
}

}  // namespace
}  // namespace flopcuda::vcuda

using namespace flopcuda::vcuda;

cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* query) {
  return entry_despite_fault([&] {
    require(name && function && driver(), cudaErrorInvalidValue);
    *function = find(name);
    if (query) *query = *function ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  });
}
