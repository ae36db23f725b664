// cudaLibrary: device code that the program itself brings, as PTX or a fat binary.
#include <cstring>
#include <fstream>
#include <iterator>

#include "error.h"
#include "handles.h"
#include "module.h"

namespace flopcuda::vcuda {
namespace {

struct Library {
  std::shared_ptr<Module> module;
  std::string image;  // of one that was read from a file
  std::mutex mutex;   // of what follows
  std::map<std::string, std::shared_ptr<Kernel>> kernels;
};

HandleTable<Library>& libraries() { return immortal<HandleTable<Library>>(); }

cudaLibrary_t add(std::shared_ptr<Library> library, const void* image) {
  library->module = make_module(image);
  library->module->on(current_device());
  return libraries().add<cudaLibrary_t>(std::move(library));
}

std::string read_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  require(file.good(), cudaErrorFileNotFound);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::shared_ptr<Kernel> kernel_named(Library& library, const char* name) {
  const std::lock_guard<std::mutex> lock(library.mutex);
  std::shared_ptr<Kernel>& kernel = library.kernels[name];
  if (!kernel) {
    require(library.module->on(current_device())->find_program(name) != nullptr, cudaErrorSymbolNotFound);
    kernel = std::make_shared<Kernel>(library.module, name);
  }
  return kernel;
}

}  // namespace
}  // namespace flopcuda::vcuda

using namespace flopcuda::vcuda;

cudaError_t cudaLibraryLoadData(cudaLibrary_t* library, const void* image, cudaJitOption*, void**, unsigned,
                                cudaLibraryOption*, void**, unsigned) {
  return entry([&] {
    require(image != nullptr, cudaErrorInvalidValue);
    require_pointer(library) = add(std::make_shared<Library>(), image);
  });
}

cudaError_t cudaLibraryLoadFromFile(cudaLibrary_t* library, const char* path, cudaJitOption*, void**, unsigned,
                                    cudaLibraryOption*, void**, unsigned) {
  return entry([&] {
    auto made = std::make_shared<Library>();
    made->image = read_file(path);
    const void* image = made->image.c_str();
    require_pointer(library) = add(std::move(made), image);
  });
}

cudaError_t cudaLibraryUnload(cudaLibrary_t library) {
  return entry([&] {
    const std::shared_ptr<Library> unloaded = libraries().remove(library);
    for (const auto& [name, kernel] : unloaded->kernels) forget_handle(kernel);
  });
}

cudaError_t cudaLibraryGetKernel(cudaKernel_t* kernel, cudaLibrary_t library, const char* name) {
  return entry([&] { require_pointer(kernel) = handle_of(kernel_named(*libraries().get(library), name)); });
}

cudaError_t cudaLibraryGetKernelCount(unsigned* count, cudaLibrary_t library) {
  return entry([&] {
    const auto module = libraries().get(library)->module->on(current_device());
    require_pointer(count) = static_cast<unsigned>(module->decoded().programs.size());
  });
}

cudaError_t cudaLibraryEnumerateKernels(cudaKernel_t* kernels, unsigned count, cudaLibrary_t handle) {
  return entry([&] {
    const std::shared_ptr<Library> library = libraries().get(handle);
    const auto& programs = library->module->on(current_device())->decoded().programs;
    for (unsigned i = 0; i < count && i < programs.size(); ++i) {
      kernels[i] = handle_of(kernel_named(*library, programs[i]->name.c_str()));
    }
  });
}

cudaError_t cudaLibraryGetGlobal(void** place, size_t* size, cudaLibrary_t library, const char* name) {
  return entry([&] {
    const auto* variable = libraries().get(library)->module->on(current_device())->find_variable(name);
    require(variable != nullptr, cudaErrorSymbolNotFound);
    if (place) *place = reinterpret_cast<void*>(variable->address);
    if (size) *size = static_cast<size_t>(variable->size);
  });
}
