// The counted CUDA kernels as functions: the interface of this folder to the operators. Includes no CUDA header.
#pragma once

#include "common/counters.h"
#include "common/problem.h"

namespace flopcuda::cuda {

// Computes on the current device and returns before the kernel ends. All pointers but the stream (a cudaStream_t) are
// device memory, dense as the problem says; bias may be null. The launch's counts are added to *device_counters, the
// zero count only if count_zero is set. Throws std::invalid_argument for a problem that the kernels cannot compute,
// std::runtime_error for a failed launch.
void conv2d(const Conv2dProblem& problem, const float* input, const float* weight, const float* bias, float* output,
            bool count_zero, Counters* device_counters, void* stream);
void linear(const LinearProblem& problem, const float* input, const float* weight, const float* bias, float* output,
            bool count_zero, Counters* device_counters, void* stream);

}  // namespace flopcuda::cuda
