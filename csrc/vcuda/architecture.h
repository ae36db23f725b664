// The limits of the compute capabilities that a virtual device can have, as the CUDA programming guide tabulates them.
#pragma once

#include <string>

namespace flopcuda::vcuda {

// The same for all.
inline constexpr int kMaxBlockThreads = 1024;
inline constexpr int kMaxBlockExtent[3] = {1024, 1024, 64};
inline constexpr int kMaxGridExtent[3] = {2147483647, 65535, 65535};
inline constexpr int kRegistersPerProcessor = 65536;
inline constexpr int kSharedBytesPerBlock = 48 * 1024;  // without asking for more
inline constexpr int kReservedSharedBytes = 1024;       // of each block, for the system

struct Architecture {
  int capability;              // times ten
  int threads_per_processor;   // resident, of one multiprocessor
  int blocks_per_processor;    // resident
  int shared_per_processor;    // bytes
  int shared_per_block_optin;  // bytes a block may have after cudaFuncSetAttribute
};

// Null for one that is not known.
const Architecture* find_architecture(int capability);
std::string known_architectures();

}  // namespace flopcuda::vcuda
