// See choice.h.
#include "cuda/choice.h"

#include <algorithm>
#include <vector>

#include "cuda/gemm_shape.h"

namespace flopcuda::cuda {
namespace {

int64_t resident_blocks(const KernelInfo& kernel, const DeviceProperties& device) {
  const size_t index = &kernel - kernels().data();
  return index < device.resident_blocks.size() ? device.resident_blocks[index] : RESIDENT_THREADS / kernel.threads;
}

// Cycles of a multiprocessor for one slice of so many blocks that it holds at a time: as many as its unit takes for
// their multiply-adds, lanes beyond the problem included, or its schedulers for all instructions of the main loop. One
// block waits besides for its own barrier and copies; other blocks fill that time.
double estimate_slice(const KernelInfo& kernel, const DeviceProperties& device, int64_t blocks) {
  if (blocks == 0) return 0;
  const int unit = static_cast<int>(kernel.unit);
  const double multiply_adds = static_cast<double>(kernel.block_m) * kernel.block_n * kernel.block_k;
  const double issue = multiply_adds / INSTRUCTION_MACS[unit] / kernel.multiply_share / SCHEDULERS;
  const double busy = std::max(issue, multiply_adds / device.rates[unit]);
  return std::max(static_cast<double>(blocks) * busy, busy + SLICE_LATENCY);
}

// On tensor cores, no slice has products of two segments.
int64_t count_slices(const KernelInfo& kernel, const GemmShape& shape) {
  if (!is_for_tensor_cores(kernel)) return divide_up(shape.segments * shape.length, kernel.block_k);
  return shape.segments * divide_up(shape.length, kernel.block_k);
}

// Cycles in waves of blocks, and in each of them whole slices. A model for choosing between kernels; it ignores memory,
// but for which count_copies decides between kernels that are about as fast.
double estimate_time(const KernelInfo& kernel, const GemmShape& shape, const DeviceProperties& device) {
  const int64_t resident = std::max<int64_t>(resident_blocks(kernel, device), 1);
  const int64_t blocks = count_blocks(kernel, shape);
  const int64_t wave = device.multiprocessors * resident;
  const double tail = estimate_slice(kernel, device, divide_up(blocks % wave, device.multiprocessors));
  return static_cast<double>(count_slices(kernel, shape)) *
         (static_cast<double>(blocks / wave) * estimate_slice(kernel, device, resident) + tail);
}

// Values that all blocks copy from memory for one product of every output.
int64_t count_copies(const KernelInfo& kernel, const GemmShape& shape) {
  return checked_product("the number of copies", {count_blocks(kernel, shape), kernel.block_m + kernel.block_n});
}

template <class Problem>
const KernelInfo& fastest_kernel(Operation operation, DataType type, bool count_zero, const Problem& problem,
                                 const GemmShape& shape, const DeviceProperties& device) {
  constexpr double CLOSE = 1.08;  // times that the estimate does not tell apart
  struct Candidate {
    const KernelInfo* kernel;
    double time;
    int64_t copies;
  };
  std::vector<Candidate> candidates;
  for (const KernelInfo& kernel : kernels()) {
    if (kernel.operation != operation || !can_take(kernel.type, type) || kernel.counts_zero != count_zero) continue;
    if (device.rates[static_cast<int>(kernel.unit)] == 0 || !find_objection(kernel, problem).empty()) continue;
    candidates.push_back({&kernel, estimate_time(kernel, shape, device), count_copies(kernel, shape)});
  }
  if (candidates.empty()) reject("no CUDA kernel counts the zeros of a triangle's products");
  const auto faster = [](const Candidate& a, const Candidate& b) { return a.time < b.time; };
  const double limit = CLOSE * std::min_element(candidates.begin(), candidates.end(), faster)->time;
  const auto preferred = [limit](const Candidate& a, const Candidate& b) {
    const bool a_is_slow = a.time > limit, b_is_slow = b.time > limit;
    return a_is_slow != b_is_slow ? b_is_slow : a.copies < b.copies;
  };
  return *std::min_element(candidates.begin(), candidates.end(), preferred)->kernel;
}

template <class Problem>
Waves waves_of(const Problem& problem, const KernelInfo& kernel, const DeviceProperties& device) {
  const GemmShape shape = shape_of(problem);
  check_kernel(kernel, problem);
  const int64_t blocks = count_blocks(kernel, shape);
  return {blocks, wave_efficiency(blocks, device)};
}

}  // namespace

const KernelInfo& choose_kernel(const ConvProblem& problem, DataType type, bool count_zero,
                                const DeviceProperties& device) {
  return fastest_kernel(Operation::conv, type, count_zero, problem, shape_of(problem), device);
}

const KernelInfo& choose_kernel(const LinearProblem& problem, DataType type, bool count_zero,
                                const DeviceProperties& device) {
  return fastest_kernel(Operation::linear, type, count_zero, problem, shape_of(problem), device);
}

// The busiest multiprocessor is given as many blocks as any, whole waves and what remains: blocks over multiprocessors,
// rounded up.
double wave_efficiency(int64_t blocks, const DeviceProperties& device) {
  const double rounded = static_cast<double>(divide_up(blocks, device.multiprocessors)) * device.multiprocessors;
  return blocks == 0 ? 0 : static_cast<double>(blocks) / rounded;
}

Waves count_waves(const ConvProblem& problem, const KernelInfo& kernel, const DeviceProperties& device) {
  return waves_of(problem, kernel, device);
}

Waves count_waves(const LinearProblem& problem, const KernelInfo& kernel, const DeviceProperties& device) {
  return waves_of(problem, kernel, device);
}

}  // namespace flopcuda::cuda
