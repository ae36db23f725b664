// See launch.h.
#include "launch.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <stdexcept>

#include "error.h"
#include "execute/launch.h"
#include "functions.h"
#include "module.h"
#include "records.h"
#include "registration.h"
#include "settings.h"
#include "streams.h"

namespace flopcuda::vcuda {
namespace {

constexpr uint32_t bit(ptxvm::Check check) { return 1u << static_cast<int>(check); }

// What ends a kernel on hardware is looked for whatever the settings say.
constexpr uint32_t kAlways = bit(ptxvm::Check::kBounds) | bit(ptxvm::Check::kAlignment) | bit(ptxvm::Check::kDeadlock) |
                             bit(ptxvm::Check::kRunaway) | bit(ptxvm::Check::kTrap) | bit(ptxvm::Check::kCall);

// How hardware would report a finding; success for what it doesn't notice.
cudaError_t fault_of(const ptxvm::Finding& finding, const ptxvm::Program& program) {
  const ptxvm::InstructionInfo& info = program.info[finding.instruction];
  switch (finding.check) {
    case ptxvm::Check::kBounds:
      return info.space == ptxvm::Space::kShared ? cudaErrorLaunchFailure : cudaErrorIllegalAddress;
    case ptxvm::Check::kAlignment:
      return cudaErrorMisalignedAddress;
    case ptxvm::Check::kTrap:
      return info.key.op == ptxvm::Op::kAssertFail ? cudaErrorAssert : cudaErrorLaunchFailure;
    case ptxvm::Check::kDeadlock:
    case ptxvm::Check::kRunaway:
      return cudaErrorLaunchTimeout;
    case ptxvm::Check::kCall:
      return info.key.op == ptxvm::Op::kCall ? cudaErrorHardwareStackError : cudaErrorInvalidPc;
    default:
      return cudaSuccess;
  }
}

std::array<uint32_t, 3> extent(dim3 size) { return {size.x, size.y, size.z}; }

void check_extents(dim3 grid, dim3 block) {
  const auto grid_extent = extent(grid), block_extent = extent(block);
  for (size_t axis = 0; axis < 3; ++axis) {
    require(grid_extent[axis] > 0 && grid_extent[axis] <= static_cast<uint32_t>(kMaxGridExtent[axis]),
            cudaErrorInvalidConfiguration);
    require(block_extent[axis] > 0 && block_extent[axis] <= static_cast<uint32_t>(kMaxBlockExtent[axis]),
            cudaErrorInvalidConfiguration);
  }
  require(uint64_t{block.x} * block.y * block.z <= kMaxBlockThreads, cudaErrorInvalidConfiguration);
}

void check_resources(const Kernel& kernel, const ptxvm::Program& program, dim3 grid, dim3 block, size_t shared_bytes,
                     const Device& device, bool cooperative) {
  const int64_t threads = int64_t{block.x} * block.y * block.z;
  require(program.max_threads == 0 || threads <= program.max_threads, cudaErrorLaunchOutOfResources);
  require(shared_bytes <= kernel.dynamic_shared_limit(device), cudaErrorInvalidValue);
  require(
      static_cast<int64_t>(shared_bytes) + program.static_shared_bytes <= device.architecture.shared_per_block_optin,
      cudaErrorInvalidValue);
  if (!cooperative) return;
  const int64_t resident =
      int64_t{resident_blocks(kernel, static_cast<int>(threads), shared_bytes, device)} * processor_count();
  require(int64_t{grid.x} * grid.y * grid.z <= resident, cudaErrorCooperativeLaunchTooLarge);
}

std::vector<uint8_t> parameter_block(const ptxvm::Program& program, void* const* arguments) {
  std::vector<uint8_t> bytes(static_cast<size_t>(program.parameter_bytes));
  const std::vector<ptxvm::ParameterSlot>& slots = program.functions[0].parameters;
  require(slots.empty() || arguments, cudaErrorInvalidValue);
  for (size_t i = 0; i < slots.size(); ++i) {
    std::memcpy(bytes.data() + slots[i].offset, arguments[i], static_cast<size_t>(slots[i].size));
  }
  return bytes;
}

ptxvm::LaunchOptions options_of(const KernelLaunch& launch) {
  ptxvm::LaunchOptions options;
  options.grid = extent(launch.grid);
  options.block = extent(launch.block);
  options.dynamic_shared_bytes = static_cast<int64_t>(launch.shared_bytes);
  options.threads = settings().threads;
  options.cooperative = launch.cooperative;
  options.shuffle = settings().seed.has_value();
  options.seed = settings().seed.value_or(0);
  options.checks = settings().checks | kAlways;
  options.instruction_budget = settings().budget;
  return options;
}

}  // namespace

KernelLaunch prepare_launch(const void* function, dim3 grid, dim3 block, void* const* arguments, size_t shared_bytes,
                            const Device& device, bool cooperative) {
  KernelLaunch launch{kernel_of(function), function, grid, block, shared_bytes, cooperative, {}};
  const ptxvm::Program& program = launch.kernel->program(device);
  check_extents(grid, block);
  check_resources(*launch.kernel, program, grid, block, shared_bytes, device, cooperative);
  launch.parameters = parameter_block(program, arguments);
  return launch;
}

void run(const KernelLaunch& launch, Device& device) {
  const std::shared_ptr<const LoadedModule> module = launch.kernel->module->on(device);
  const ptxvm::Program& program = launch.kernel->program(device);
  ptxvm::LaunchResult result;
  try {
    result = ptxvm::run_launch(program, options_of(launch), launch.parameters, device.memory);
  } catch (const std::runtime_error& error) {
    std::fprintf(stderr, "flopcuda virtual CUDA: %s\n", error.what());
    fail(cudaErrorInvalidConfiguration);
  }
  std::fwrite(result.output.data(), 1, result.output.size(), stdout);
  std::fflush(stdout);
  record_launch(launch, device, *module, program, result);
  for (const ptxvm::Finding& finding : result.findings) {
    const cudaError_t fault = fault_of(finding, program);
    if (!fault) continue;
    print_finding(*module, program, finding);
    raise_fault(device, fault);
  }
}

}  // namespace flopcuda::vcuda

using namespace flopcuda::vcuda;

namespace {

struct Configuration {
  dim3 grid, block;
  size_t shared_bytes;
  cudaStream_t stream;
};

// Of the kernel<<<...>>>() that is being called.
thread_local std::vector<Configuration> configurations;

void launch_on(cudaStream_t handle, const void* function, dim3 grid, dim3 block, void* const* arguments,
               size_t shared_bytes, bool cooperative = false) {
  const std::shared_ptr<Stream> stream = stream_of(handle);
  submit(*stream, prepare_launch(function, grid, block, arguments, shared_bytes, stream->device, cooperative));
}

bool is_cooperative(const cudaLaunchConfig_t& config) {
  bool cooperative = false;
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    const cudaLaunchAttribute& attribute = config.attrs[i];
    switch (attribute.id) {
      case cudaLaunchAttributeCooperative:
        cooperative = attribute.val.cooperative != 0;
        break;
      case cudaLaunchAttributeClusterDimension: {
        const auto& size = attribute.val.clusterDim;
        require(size.x == 1 && size.y == 1 && size.z == 1, cudaErrorNotSupported);
        break;
      }
      default:  // The others are hints.
        break;
    }
  }
  return cooperative;
}

}  // namespace

VCUDA_EXPORT unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes, CUstream_st* stream) {
  configurations.push_back({grid, block, shared_bytes, stream});
  return 0;
}

VCUDA_EXPORT cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared_bytes, void* stream) {
  return entry_despite_fault([&] {
    require(!configurations.empty(), cudaErrorMissingConfiguration);
    const Configuration top = configurations.back();
    configurations.pop_back();
    *grid = top.grid;
    *block = top.block;
    *shared_bytes = top.shared_bytes;
    *static_cast<cudaStream_t*>(stream) = top.stream;
  });
}

cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared_bytes,
                             cudaStream_t stream) {
  return entry([&] { launch_on(stream, function, grid, block, arguments, shared_bytes); });
}

VCUDA_EXPORT cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                                            size_t shared_bytes, cudaStream_t stream) {
  return cudaLaunchKernel(kernel, grid, block, arguments, shared_bytes, stream);
}

cudaError_t cudaLaunchCooperativeKernel(const void* function, dim3 grid, dim3 block, void** arguments,
                                        size_t shared_bytes, cudaStream_t stream) {
  return entry([&] { launch_on(stream, function, grid, block, arguments, shared_bytes, true); });
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function, void** arguments) {
  return entry([&] {
    const cudaLaunchConfig_t& wanted = require_pointer(config);
    launch_on(wanted.stream, function, wanted.gridDim, wanted.blockDim, arguments, wanted.dynamicSmemBytes,
              is_cooperative(wanted));
  });
}
