// What the environment asks for, read once: FLOPCUDA_VCUDA_ARCH, _MEMORY, _DEVICES, _CHECKS, _SEED, _THREADS, _BUDGET.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

namespace flopcuda::vcuda {

struct Settings {
  int architecture = 80;            // compute capability times ten
  size_t memory = size_t{8} << 30;  // bytes of each device
  int devices = 1;                  // how many there are
  uint32_t checks = ~0u;            // bits by ptxvm::Check
  std::optional<uint64_t> seed;     // shuffles blocks and warps
  int threads = 0;                  // that execute blocks; 0: one for each core
  int64_t budget = 1'000'000'000;   // instructions of one warp before it counts as running away
};

// Ends the process with one sentence if a variable has a value it can't have.
const Settings& settings();

}  // namespace flopcuda::vcuda
