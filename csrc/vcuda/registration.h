// What a program compiled by nvcc hands over when it is loaded: fat binaries, and the host's names of what is in them.
#pragma once

#include <memory>

#include "cuda_api.h"
#include "module.h"

namespace flopcuda::vcuda {

// By the host's function or by handle: cudaErrorInvalidDeviceFunction if it is neither.
std::shared_ptr<Kernel> kernel_of(const void* function);

// By the host's variable: where it is on the current device, and how long.
struct Symbol {
  char* place = nullptr;
  size_t size = 0;
};
Symbol symbol_of(const void* variable);

}  // namespace flopcuda::vcuda
