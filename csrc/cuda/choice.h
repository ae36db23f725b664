// The choice of a kernel for a problem: a model of how long each of them would take on a device.
#pragma once

#include <cstdint>

#include "common/problem.h"
#include "cuda/device.h"
#include "cuda/plan.h"

namespace flopcuda::cuda {

// The kernel that suits the problem on a device, of the type or, in place of one for tensor cores, of float32. Counted
// with it is what it takes to bring tensors, dense and row-major as the problem says, into the type and the layout that
// the kernel has. std::invalid_argument, in one sentence, if no kernel can compute it.
Choice choose_kernel(const ConvProblem& problem, DataType type, bool count_zero, const DeviceProperties& device);
Choice choose_kernel(const LinearProblem& problem, DataType type, bool count_zero, const DeviceProperties& device);

// How a kernel would best compute the problem. std::invalid_argument if it cannot.
Choice choose_way(const ConvProblem& problem, const KernelInfo& kernel, const DeviceProperties& device);
Choice choose_way(const LinearProblem& problem, const KernelInfo& kernel, const DeviceProperties& device);

// The blocks of a launch that multiply, and how they fill a device: those of its average multiprocessor over those of
// the busiest; 0 without blocks.
struct Waves {
  int64_t blocks;
  double efficiency;
};

// std::invalid_argument if the kernel cannot compute the problem, or not so.
Waves count_waves(const ConvProblem& problem, const Choice& choice, const DeviceProperties& device);
Waves count_waves(const LinearProblem& problem, const Choice& choice, const DeviceProperties& device);

}  // namespace flopcuda::cuda
