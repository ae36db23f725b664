// See registration.h. Whatever is declared in no header of CUDA's is called by code that nvcc generates.
#include "registration.h"

#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "address_space.h"
#include "error.h"
#include "fatbin.h"
#include "handles.h"

namespace flopcuda::vcuda {
namespace {

struct ManagedVariable {
  void** host_pointer;
  std::string name;
};

// One fat binary; its address is the handle that the program gets.
struct Registration {
  std::shared_ptr<Module> module;
  std::vector<const void*> functions, variables;  // of the host
  std::vector<ManagedVariable> managed;
};

struct Registry {
  std::mutex mutex;
  std::unordered_map<const void*, std::shared_ptr<Kernel>> kernels;
  std::unordered_map<const void*, Variable> variables;
};

HandleTable<Registration>& registrations() { return immortal<HandleTable<Registration>>(); }
Registry& registry() { return immortal<Registry>(); }

// The host reads and writes a managed variable through a pointer of its own.
void connect(const ManagedVariable& variable, const std::shared_ptr<Module>& module) {
  *variable.host_pointer = place_of({module, variable.name}, current_device());
}

void unregister(const Registration& registration) {
  Registry& all = registry();
  const std::lock_guard<std::mutex> lock(all.mutex);
  for (const void* function : registration.functions) {
    forget_handle(all.kernels[function]);
    all.kernels.erase(function);
  }
  for (const void* variable : registration.variables) all.variables.erase(variable);
}

}  // namespace

std::shared_ptr<Kernel> kernel_of(const void* function) {
  {
    const std::lock_guard<std::mutex> lock(registry().mutex);
    const auto found = registry().kernels.find(function);
    if (found != registry().kernels.end()) return found->second;
  }
  std::shared_ptr<Kernel> kernel = find_kernel(function);
  require(kernel != nullptr, cudaErrorInvalidDeviceFunction);
  return kernel;
}

Symbol symbol_of(const void* variable) {
  // A managed variable is named by its place.
  const std::optional<Block> block = address_space().find(variable);
  if (block && block->kind == MemoryKind::kManaged) return {reinterpret_cast<char*>(block->begin), block->size};
  std::unique_lock<std::mutex> lock(registry().mutex);
  const auto found = registry().variables.find(variable);
  require(found != registry().variables.end(), cudaErrorInvalidSymbol);
  const Variable named = found->second;
  lock.unlock();
  return {place_of(named, current_device()), named.size};
}

}  // namespace flopcuda::vcuda

using namespace flopcuda::vcuda;

VCUDA_EXPORT void** __cudaRegisterFatBinary(const FatBinaryWrapper* wrapper) {
  return registrations().add<void**>(std::make_shared<Registration>(Registration{make_module(wrapper)}));
}

VCUDA_EXPORT void __cudaRegisterFatBinaryEnd(void**) {}

VCUDA_EXPORT void __cudaUnregisterFatBinary(void** handle) {
  entry_despite_fault([&] { unregister(*registrations().remove(handle)); });
}

VCUDA_EXPORT void __cudaRegisterFunction(void** handle, const char* function, char*, const char* name, int, uint3*,
                                         uint3*, dim3*, dim3*, int*) {
  entry_despite_fault([&] {
    const std::shared_ptr<Registration> registration = registrations().get(handle);
    const std::lock_guard<std::mutex> lock(registry().mutex);
    registry().kernels.insert_or_assign(function, std::make_shared<Kernel>(registration->module, name));
    registration->functions.push_back(function);
  });
}

VCUDA_EXPORT void __cudaRegisterVar(void** handle, char* variable, char*, const char* name, int, size_t size, int,
                                    int) {
  entry_despite_fault([&] {
    const std::shared_ptr<Registration> registration = registrations().get(handle);
    const std::lock_guard<std::mutex> lock(registry().mutex);
    registry().variables.insert_or_assign(variable, Variable{registration->module, name, size});
    registration->variables.push_back(variable);
  });
}

VCUDA_EXPORT void __cudaRegisterManagedVar(void** handle, void** pointer, char*, const char* name, int, size_t, int,
                                           int) {
  entry_despite_fault([&] {
    const std::shared_ptr<Registration> registration = registrations().get(handle);
    registration->managed.push_back({pointer, name});
    registration->module->add_managed_variable(name);
  });
}

// Called in front of the first use of a managed variable by the host.
VCUDA_EXPORT char __cudaInitModule(void** handle) {
  const cudaError_t status = entry([&] {
    const std::shared_ptr<Registration> registration = registrations().get(handle);
    for (const ManagedVariable& variable : registration->managed) connect(variable, registration->module);
  });
  return status == cudaSuccess;
}

cudaError_t cudaGetSymbolAddress(void** place, const void* variable) {
  return entry([&] { require_pointer(place) = symbol_of(variable).place; });
}

cudaError_t cudaGetSymbolSize(size_t* size, const void* variable) {
  return entry([&] { require_pointer(size) = symbol_of(variable).size; });
}

VCUDA_EXPORT cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  return entry([&] { require_pointer(kernel) = handle_of(kernel_of(function)); });
}

cudaError_t cudaGetKernel(cudaKernel_t* kernel, const void* function) { return __cudaGetKernel(kernel, function); }

cudaError_t cudaGetFuncBySymbol(cudaFunction_t* function, const void* symbol) {
  return entry([&] { require_pointer(function) = reinterpret_cast<cudaFunction_t>(handle_of(kernel_of(symbol))); });
}
