// Launches of kernels.
#pragma once

#include "device.h"
#include "operations.h"

namespace flopcuda::vcuda {

// Checks what the hardware would check, and copies the arguments: as many bytes of each as the PTX declares.
KernelLaunch prepare_launch(const void* function, dim3 grid, dim3 block, void* const* arguments, size_t shared_bytes,
                            const Device& device, bool cooperative = false);

// Runs it on the machine. A fault of the kernel stays with the device and is thrown as an Error.
void run(const KernelLaunch& launch, Device& device);

}  // namespace flopcuda::vcuda
