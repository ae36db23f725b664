// What kernels say of themselves, and how many blocks of them fit on a multiprocessor.
#pragma once

#include <cstddef>

#include "device.h"
#include "module.h"

namespace flopcuda::vcuda {

int resident_blocks(const Kernel& kernel, int threads, size_t dynamic_shared_bytes, const Device& device);

}  // namespace flopcuda::vcuda
