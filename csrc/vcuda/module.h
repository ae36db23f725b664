// Modules: device code, and what of it a host program can name: kernels and variables.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "cuda_api.h"
#include "decode/decoder.h"
#include "device.h"

namespace flopcuda::vcuda {

// PTX made ready on one device, where it has its own variables.
struct LoadedModule {
  ptxvm::DecodedModule decoded;

  const ptxvm::Program* find_program(const std::string& name) const;
  const ptxvm::ModuleVariable* find_variable(const std::string& name) const;
};

class Module {
 public:
  // `image` is looked at when something of the module is needed; most modules of a big library never are.
  explicit Module(const void* image) : image_(image) {}
  ~Module();

  // cudaErrorNoKernelImageForDevice without PTX, cudaErrorInvalidPtx if the machine can't load it.
  const LoadedModule& on(const Device& device);
  void unload(const Device& device);

 private:
  const std::string& ptx(const Device& device);

  const void* image_;
  std::mutex mutex_;
  std::optional<std::string> ptx_;
  std::map<int, std::unique_ptr<LoadedModule>> loaded_;
};

class Kernel {
 public:
  Kernel(std::shared_ptr<Module> module, std::string name) : module(std::move(module)), name(std::move(name)) {}

  const std::shared_ptr<Module> module;
  const std::string name;

  // cudaErrorNoKernelImageForDevice if the module doesn't have it.
  const ptxvm::Program& program(const Device& device) const;

  size_t dynamic_shared_limit(const Device& device) const;
  void set_dynamic_shared_limit(const Device& device, int bytes);
  int carveout(const Device& device) const;
  void set_carveout(const Device& device, int percent);

 private:
  struct Attributes {
    int dynamic_shared_limit = kSharedBytesPerBlock;
    int carveout = -1;
  };
  mutable std::mutex mutex_;
  std::map<int, Attributes> attributes_;
};

struct Variable {
  std::shared_ptr<Module> module;
  std::string name;
  size_t size = 0;
};

// The place of a variable on a device; cudaErrorInvalidSymbol if the module doesn't have it.
char* place_of(const Variable& variable, const Device& device);

// Modules of libraries and programs.
std::shared_ptr<Module> add_module(const void* image);
void remove_module(const std::shared_ptr<Module>& module);
void unload_modules(const Device& device);

// Handles of kernels.
cudaKernel_t handle_of(const std::shared_ptr<Kernel>& kernel);
std::shared_ptr<Kernel> find_kernel(const void* handle);  // null if there is none
void forget_handle(const std::shared_ptr<Kernel>& kernel);

}  // namespace flopcuda::vcuda
