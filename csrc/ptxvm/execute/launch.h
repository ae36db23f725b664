// One launch: what is run, over what, with which checks; and what comes of it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "decode/program.h"
#include "execute/memory_map.h"
#include "observe/counters.h"
#include "observe/findings.h"

namespace flopcuda::ptxvm {

struct LaunchOptions {
  std::array<uint32_t, 3> grid{1, 1, 1};
  std::array<uint32_t, 3> block{1, 1, 1};
  int64_t dynamic_shared_bytes = 0;
  int threads = 0;  // 0: one for each core
  // The blocks may wait for one another, as cooperative_groups::this_grid().sync() does: all run at the same time.
  bool cooperative = false;
  bool shuffle = false;  // order of blocks and warps by `seed`; otherwise ascending
  uint64_t seed = 0;
  uint32_t checks = ~0u;                     // bits by Check
  int64_t instruction_budget = 100'000'000;  // of one warp
};

// What all workers of a launch share.
struct Launch {
  Launch(const Program& program, const LaunchOptions& options, std::vector<uint8_t> parameters, MemoryMap& memory)
      : program(program), options(options), parameters(std::move(parameters)), memory(memory) {}

  const Program& program;
  const LaunchOptions& options;
  const std::vector<uint8_t> parameters;
  MemoryMap& memory;
  LaunchFindings findings;
  std::atomic<uint64_t> stopped_by{UINT64_MAX};  // ticket of the earliest block that trapped; later ones do not count
  uint64_t grid_workspace = 0;                   // address; 0 unless cooperative
  std::mutex output_mutex;
  std::string output;  // of vprintf

  void stop(uint64_t ticket) {
    uint64_t known = stopped_by.load();
    while (ticket < known && !stopped_by.compare_exchange_weak(known, ticket)) continue;
  }
  // Whether a block need not go on. Blocks that wait for one another end together.
  bool is_over(uint64_t ticket) const {
    const uint64_t last = stopped_by.load(std::memory_order_relaxed);
    return options.cooperative ? last != UINT64_MAX && ticket != last : ticket > last;
  }

  int64_t threads_per_block() const { return int64_t{options.block[0]} * options.block[1] * options.block[2]; }
  // What a block has: the kernel's own, then what the system reserves for itself (cooperative groups use that), which
  // is there only for a kernel that asks where it lies.
  static constexpr int64_t kReservedSharedBytes = 1024;
  int64_t shared_bytes() const {
    return program.uses_reserved_shared ? reserved_shared_begin() + kReservedSharedBytes : kernel_shared_bytes();
  }
  int64_t reserved_shared_begin() const { return (kernel_shared_bytes() + 127) / 128 * 128; }
  int64_t kernel_shared_bytes() const {
    return options.dynamic_shared_bytes > 0 ? program.dynamic_shared_offset + options.dynamic_shared_bytes
                                            : program.static_shared_bytes;
  }
};

struct LaunchResult {
  Counters counters{0, 0};
  std::vector<Finding> findings;
  std::string output;
  bool trapped = false;
  double seconds = 0;
};

// Runs to the end. Throws PtxError when the launch itself is wrong (sizes, parameters).
LaunchResult run_launch(const Program& program, const LaunchOptions& options, std::vector<uint8_t> parameters,
                        MemoryMap& memory);

}  // namespace flopcuda::ptxvm
