// Modules: device code, and what of it a host program can name: kernels and variables.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cuda_api.h"
#include "decode/decoder.h"
#include "device.h"

namespace flopcuda::vcuda {

// PTX made ready on one device, where it has its own variables but for managed ones.
class LoadedModule {
 public:
  // `lender` is the module on another device, whose managed variables are used here, too; or null.
  LoadedModule(const std::string& ptx, const Device& device, const std::set<std::string>& managed,
               std::shared_ptr<const LoadedModule> lender);
  ~LoadedModule();
  LoadedModule(const LoadedModule&) = delete;
  LoadedModule& operator=(const LoadedModule&) = delete;

  const ptxvm::DecodedModule& decoded() const { return decoded_; }
  // Null if there is none.
  const ptxvm::Program* find_program(const std::string& name) const;
  const ptxvm::ModuleVariable* find_variable(const std::string& name) const;

 private:
  ptxvm::DecodedModule decoded_;
  std::shared_ptr<const LoadedModule> lender_;
  std::vector<uint64_t> blocks_;  // of its variables in the address space
};

class Module {
 public:
  // `image` is looked at when something of the module is needed; most modules of a big library never are.
  explicit Module(const void* image) : image_(image) {}

  // cudaErrorNoKernelImageForDevice without PTX, cudaErrorInvalidPtx if the machine can't load it.
  std::shared_ptr<const LoadedModule> on(const Device& device);
  void unload(const Device& device);
  // Before it is first loaded.
  void add_managed_variable(const std::string& name);

 private:
  const std::string& ptx(const Device& device);

  const void* image_;
  std::mutex mutex_;
  std::optional<std::string> ptx_;
  std::set<std::string> managed_;
  std::map<int, std::shared_ptr<const LoadedModule>> loaded_;
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

std::shared_ptr<Module> make_module(const void* image);
// Of all modules: what was loaded for the device.
void unload_modules(const Device& device);

// Handles of kernels.
cudaKernel_t handle_of(const std::shared_ptr<Kernel>& kernel);
std::shared_ptr<Kernel> find_kernel(const void* handle);  // null if there is none
void forget_handle(const std::shared_ptr<Kernel>& kernel);

}  // namespace flopcuda::vcuda
