// Launches a plan on the current CUDA device, and asks what device that is. Includes no CUDA header: a stream is a
// cudaStream_t behind void*.
#pragma once

#include "cuda/plan.h"

namespace flopcuda::cuda {

// Returns before the kernel ends. std::runtime_error with the kernel's name and CUDA's words if it cannot be launched.
void launch(const LaunchPlan& plan, void* stream);

// Of the current CUDA device, asked of the runtime at the first call. std::runtime_error with CUDA's words if it
// refuses.
const DeviceProperties& device_properties();

}  // namespace flopcuda::cuda
