// See module.h.
#include "module.h"

#include <algorithm>
#include <cstdio>
#include <stdexcept>

#include "address_space.h"
#include "error.h"
#include "execute/handlers.h"
#include "fatbin.h"
#include "handles.h"
#include "parse/parser.h"

namespace flopcuda::vcuda {
namespace {

HandleTable<Kernel>& kernels() { return immortal<HandleTable<Kernel>>(); }

// All that their owners keep alive.
struct Modules {
  std::mutex mutex;
  std::vector<std::weak_ptr<Module>> all;
};
Modules& modules() { return immortal<Modules>(); }

Block block_of(const ptxvm::ModuleVariable& variable, const Device& device, bool managed) {
  Block block;
  block.begin = variable.address;
  block.size = static_cast<size_t>(variable.size);
  block.kind = managed ? MemoryKind::kManaged : MemoryKind::kVariable;
  block.device = device.ordinal;
  block.writable = variable.space == ptxvm::Space::kGlobal;
  block.name = variable.name;
  return block;
}

ptxvm::PlacedVariables places_of(const std::set<std::string>& names, const LoadedModule* lender) {
  ptxvm::PlacedVariables places;
  for (const std::string& name : names) {
    const ptxvm::ModuleVariable* variable = lender ? lender->find_variable(name) : nullptr;
    if (variable) places.emplace(name, variable->address);
  }
  return places;
}

}  // namespace

// ---- modules on a device ----

LoadedModule::LoadedModule(const std::string& ptx, const Device& device, const std::set<std::string>& managed,
                           std::shared_ptr<const LoadedModule> lender)
    : lender_(std::move(lender)) {
  const ptxvm::PlacedVariables lent = places_of(managed, lender_.get());
  decoded_ = ptxvm::decode(ptxvm::parse(ptx), lent);
  for (const auto& program : decoded_.programs) ptxvm::bind_handlers(*program, decoded_.syntax);
  for (const ptxvm::ModuleVariable& variable : decoded_.variables) {
    if (lent.count(variable.name)) continue;
    address_space().add(block_of(variable, device, managed.count(variable.name) > 0));
    blocks_.push_back(variable.address);
  }
}

LoadedModule::~LoadedModule() {
  for (const uint64_t begin : blocks_) {
    address_space().remove(reinterpret_cast<const void*>(begin), [](const Block&) { return true; });
  }
}

const ptxvm::Program* LoadedModule::find_program(const std::string& name) const {
  for (const auto& program : decoded_.programs) {
    if (program->name == name) return program.get();
  }
  return nullptr;
}

const ptxvm::ModuleVariable* LoadedModule::find_variable(const std::string& name) const {
  for (const ptxvm::ModuleVariable& variable : decoded_.variables) {
    if (variable.name == name) return &variable;
  }
  return nullptr;
}

// ---- modules ----

const std::string& Module::ptx(const Device& device) {
  if (!ptx_) {
    ptx_ = find_ptx_in_image(image_, device.architecture.capability);
    require(ptx_.has_value(), cudaErrorNoKernelImageForDevice);
  }
  return *ptx_;
}

std::shared_ptr<const LoadedModule> Module::on(const Device& device) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = loaded_.find(device.ordinal);
  if (found != loaded_.end()) return found->second;
  const std::shared_ptr<const LoadedModule> other = loaded_.empty() ? nullptr : loaded_.begin()->second;
  try {
    auto made = std::make_shared<LoadedModule>(ptx(device), device, managed_, managed_.empty() ? nullptr : other);
    return loaded_.emplace(device.ordinal, std::move(made)).first->second;
  } catch (const std::runtime_error& error) {
    std::fprintf(stderr, "flopcuda virtual CUDA: %s\n", error.what());
    fail(cudaErrorInvalidPtx);
  }
}

void Module::unload(const Device& device) {
  const std::lock_guard<std::mutex> lock(mutex_);
  loaded_.erase(device.ordinal);
}

void Module::add_managed_variable(const std::string& name) {
  const std::lock_guard<std::mutex> lock(mutex_);
  managed_.insert(name);
}

std::shared_ptr<Module> make_module(const void* image) {
  auto module = std::make_shared<Module>(image);
  const std::lock_guard<std::mutex> lock(modules().mutex);
  auto& all = modules().all;
  all.erase(std::remove_if(all.begin(), all.end(), [](const auto& entry) { return entry.expired(); }), all.end());
  all.push_back(module);
  return module;
}

void unload_modules(const Device& device) {
  const std::lock_guard<std::mutex> lock(modules().mutex);
  for (const std::weak_ptr<Module>& entry : modules().all) {
    if (const std::shared_ptr<Module> module = entry.lock()) module->unload(device);
  }
}

// ---- kernels ----

const ptxvm::Program& Kernel::program(const Device& device) const {
  const ptxvm::Program* found = module->on(device)->find_program(name);
  require(found != nullptr, cudaErrorNoKernelImageForDevice);
  return *found;
}

size_t Kernel::dynamic_shared_limit(const Device& device) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = attributes_.find(device.ordinal);
  return static_cast<size_t>((found == attributes_.end() ? Attributes() : found->second).dynamic_shared_limit);
}

void Kernel::set_dynamic_shared_limit(const Device& device, int bytes) {
  const int64_t total = bytes + program(device).static_shared_bytes;
  require(bytes >= 0 && total <= device.architecture.shared_per_block_optin, cudaErrorInvalidValue);
  const std::lock_guard<std::mutex> lock(mutex_);
  attributes_[device.ordinal].dynamic_shared_limit = bytes;
}

int Kernel::carveout(const Device& device) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = attributes_.find(device.ordinal);
  return (found == attributes_.end() ? Attributes() : found->second).carveout;
}

void Kernel::set_carveout(const Device& device, int percent) {
  require(percent >= -1 && percent <= 100, cudaErrorInvalidValue);
  const std::lock_guard<std::mutex> lock(mutex_);
  attributes_[device.ordinal].carveout = percent;
}

cudaKernel_t handle_of(const std::shared_ptr<Kernel>& kernel) { return kernels().add<cudaKernel_t>(kernel); }
std::shared_ptr<Kernel> find_kernel(const void* handle) { return kernels().find(handle); }
void forget_handle(const std::shared_ptr<Kernel>& kernel) { kernels().forget(kernel.get()); }

// ---- variables ----

char* place_of(const Variable& variable, const Device& device) {
  const ptxvm::ModuleVariable* found = variable.module->on(device)->find_variable(variable.name);
  require(found != nullptr, cudaErrorInvalidSymbol);
  return reinterpret_cast<char*>(found->address);
}

}  // namespace flopcuda::vcuda
