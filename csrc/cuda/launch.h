// Launches a plan on the current CUDA device. Includes no CUDA header: a stream is a cudaStream_t behind void*.
#pragma once

#include "cuda/plan.h"

namespace flopcuda::cuda {

// Returns before the kernel ends. std::runtime_error with the kernel's name and CUDA's words if it cannot be launched.
void launch(const LaunchPlan& plan, void* stream);

}  // namespace flopcuda::cuda
