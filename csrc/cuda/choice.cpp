// See choice.h.
#include "cuda/choice.h"

#include <algorithm>
#include <string>
#include <vector>

#include "cuda/gemm_shape.h"
#include "cuda/load.h"
#include "cuda/tap_channels.h"

namespace flopcuda::cuda {
namespace {

int64_t resident_blocks(const KernelInfo& kernel, const DeviceProperties& device) {
  const size_t index = &kernel - kernels().data();
  return index < device.resident_blocks.size() ? device.resident_blocks[index] : RESIDENT_THREADS / kernel.threads;
}

// Cycles of a multiprocessor for so many slices of each of so many blocks, which it holds at a time. A slice takes as
// many as the unit for its multiply-adds, lanes beyond the problem included, or the schedulers for all instructions of
// the main loop. One block waits besides for its own barrier and copies; other blocks fill that time.
double estimate_wave(const KernelInfo& kernel, double slices, const DeviceProperties& device, int64_t blocks) {
  if (blocks == 0) return 0;
  const int unit = static_cast<int>(kernel.unit);
  const double multiply_adds = static_cast<double>(kernel.block_m) * kernel.block_n * kernel.block_k;
  const double issue = multiply_adds / INSTRUCTION_MACS[unit] / kernel.multiply_share / SCHEDULERS;
  const double busy = std::max(issue, multiply_adds / device.rates[unit]);
  return FILL_LATENCY + slices * std::max(static_cast<double>(blocks) * busy, busy + SLICE_LATENCY);
}

// Cycles of all waves. Whole ones hold short blocks and long ones, and the next come as these end; the last wave ends
// with its longest.
double estimate_waves(const KernelInfo& kernel, const Load& load, const DeviceProperties& device) {
  if (load.blocks == 0) return 0;
  const int64_t resident = std::max<int64_t>(resident_blocks(kernel, device), 1);
  const int64_t wave = device.multiprocessors * resident;
  const int64_t tail = divide_up(load.blocks % wave, device.multiprocessors);
  const double mean = load.slices / static_cast<double>(load.blocks);
  return static_cast<double>(load.blocks / wave) * estimate_wave(kernel, mean, device, resident) +
         estimate_wave(kernel, static_cast<double>(load.longest), device, tail);
}

// Cycles in which the busiest multiprocessor writes the sums of its blocks and reads those of its tiles.
double estimate_combination(const KernelInfo& kernel, int64_t tiles, int32_t splits, const DeviceProperties& device) {
  if (!kernel.is_split || tiles == 0) return 0;
  const int64_t moved =
      divide_up(tiles * splits, device.multiprocessors) + divide_up(tiles, device.multiprocessors) * splits;
  const int64_t tile_bytes = int64_t{kernel.block_m} * kernel.block_n * sum_bytes(kernel.type);
  return SPLIT_LATENCY + static_cast<double>(moved * tile_bytes) / SPLIT_BYTES;
}

// Cycles in which memory moves each tensor once, and the sums of a split reduction.
double estimate_memory(const Choice& choice, const GemmShape& shape, const DeviceProperties& device) {
  const KernelInfo& kernel = *choice.kernel;
  const double sums = kernel.is_split ? static_cast<double>(count_tiles(kernel, shape)) * choice.splits *
                                            kernel.block_m * kernel.block_n * sum_bytes(kernel.type)
                                      : 0;
  const double tensors = static_cast<double>(shape.values) * scalar_bytes(kernel.type);
  return (tensors + sums) / (device.memory_bytes * device.multiprocessors);
}

// Cycles. A model for choosing between kernels; it ignores caches, but for which count_copies decides between kernels
// that are about as fast.
double estimate_time(const Choice& choice, const GemmShape& shape, const DeviceProperties& device) {
  const KernelInfo& kernel = *choice.kernel;
  const int64_t tiles = count_tiles(kernel, shape);
  const double compute = estimate_waves(kernel, load_of(kernel, shape, choice.splits), device) +
                         estimate_combination(kernel, tiles, choice.splits, device);
  return std::max(compute, estimate_memory(choice, shape, device));
}

// Values that all blocks copy from memory for their products, and of split sums to memory and back.
double count_copies(const Choice& choice, const GemmShape& shape) {
  const KernelInfo& kernel = *choice.kernel;
  const double operands = static_cast<double>(shape.segments * shape.length) * (kernel.block_m + kernel.block_n);
  const double sums = kernel.is_split ? 2.0 * choice.splits * kernel.block_m * kernel.block_n : 0;
  return static_cast<double>(count_tiles(kernel, shape)) * (operands + sums);
}

// Cycles in which memory brings operands and output from one type and layout into another: those of convolutions on
// tensor cores have their channels last, and images of which a padded width is gathered are copied twice: so many
// padded inputs.
double estimate_conversion(const KernelInfo& kernel, const GemmShape& given, const GemmShape& computed, int64_t padded,
                           DataType type, const DeviceProperties& device) {
  const int given_bytes = scalar_bytes(type), bytes = scalar_bytes(kernel.type);
  if (given_bytes == bytes && !has_channels_last(kernel)) return 0;
  const double moved =
      static_cast<double>(given.values) * given_bytes + static_cast<double>(computed.values + 2 * padded) * bytes;
  return (padded > 0 ? 4 : 3) * device.launch_cycles + moved / (device.memory_bytes * device.multiprocessors);
}

struct Candidate {
  Choice choice;
  double time;
  double conversion;  // before and after
  double copies;

  double total() const { return time + conversion; }
};

// The ways in which a kernel can split the problem, in steps of an eighth where there are many, up to where some waves
// of blocks fill the device. With the first of them, a split kernel is slower than its twin.
void append_splits(std::vector<Candidate>& candidates, Choice choice, double conversion, const GemmShape& shape,
                   const DeviceProperties& device) {
  constexpr int64_t WAVES = 8;  // the more, the less the last one leaves idle
  const KernelInfo& kernel = *choice.kernel;
  const int64_t wave = device.multiprocessors * std::max<int64_t>(resident_blocks(kernel, device), 1);
  const int64_t most = max_splits(kernel, shape), tiles = count_tiles(kernel, shape);
  int32_t last = 0;
  for (int32_t at_most = 1; at_most <= most; at_most += std::max(at_most / 8, 1)) {
    choice.splits = fewest_splits(kernel, shape, at_most);
    if (choice.splits == last) continue;
    last = choice.splits;
    candidates.push_back({choice, estimate_time(choice, shape, device), conversion, count_copies(choice, shape)});
    if (tiles * choice.splits >= WAVES * wave) return;
  }
}

// The ways in which a kernel can compute the problem, whose shape is given.
template <class Problem>
void append_candidates(std::vector<Candidate>& candidates, const KernelInfo& kernel, const Problem& problem,
                       const GemmShape& shape, DataType type, const DeviceProperties& device) {
  for (const bool gathers_width : {false, true}) {
    const Choice choice{&kernel, 1, gathers_width};
    if (!find_objection(choice, problem).empty()) continue;
    const GemmShape computed = as_computed(choice, problem, shape);
    const int64_t padded = count_padded_inputs(choice, problem);
    const double conversion = estimate_conversion(kernel, shape, computed, padded, type, device);
    append_splits(candidates, choice, conversion, computed, device);
  }
}

// Of those that are about as fast as the fastest, the one that copies least.
Choice select(const std::vector<Candidate>& candidates) {
  constexpr double CLOSE = 1.06;  // times that the estimate does not tell apart
  const auto faster = [](const Candidate& a, const Candidate& b) { return a.total() < b.total(); };
  const Candidate& fastest = *std::min_element(candidates.begin(), candidates.end(), faster);
  const double limit = CLOSE * fastest.time + fastest.conversion;
  const auto preferred = [limit](const Candidate& a, const Candidate& b) {
    const bool a_is_slow = a.total() > limit, b_is_slow = b.total() > limit;
    return a_is_slow != b_is_slow ? b_is_slow : a.copies < b.copies;
  };
  return std::min_element(candidates.begin(), candidates.end(), preferred)->choice;
}

template <class Problem>
Choice fastest_kernel(Operation operation, DataType type, bool count_zero, const Problem& problem,
                      const DeviceProperties& device) {
  const GemmShape shape = shape_of(problem);
  std::vector<Candidate> candidates;
  for (const KernelInfo& kernel : kernels()) {
    if (kernel.operation != operation || !can_take(kernel.type, type) || kernel.counts_zero != count_zero) continue;
    if (device.rates[static_cast<int>(kernel.unit)] == 0) continue;
    append_candidates(candidates, kernel, problem, shape, type, device);
  }
  if (candidates.empty()) reject("no CUDA kernel counts the zeros of a triangle's products");
  return select(candidates);
}

template <class Problem>
Choice best_way(const Problem& problem, const KernelInfo& kernel, const DeviceProperties& device) {
  checked_shape({&kernel}, problem);
  const bool has_tensor_cores = device.rates[static_cast<int>(Unit::mma_f16)] > 0;
  if (is_for_tensor_cores(kernel) && !has_tensor_cores) {
    reject(std::string(kernel.name) + " needs the tensor cores of GPUs from 8.0 on");
  }
  std::vector<Candidate> candidates;
  append_candidates(candidates, kernel, problem, shape_of(problem), kernel.type, device);
  return select(candidates);
}

// The busiest multiprocessor is given as many blocks as any, whole waves and what remains: blocks over multiprocessors,
// rounded up.
double wave_efficiency(int64_t blocks, const DeviceProperties& device) {
  const double rounded = static_cast<double>(divide_up(blocks, device.multiprocessors)) * device.multiprocessors;
  return blocks == 0 ? 0 : static_cast<double>(blocks) / rounded;
}

template <class Problem>
Waves waves_of(const Problem& problem, const Choice& choice, const DeviceProperties& device) {
  const GemmShape shape = checked_shape(choice, problem);
  const int64_t blocks = load_of(*choice.kernel, shape, choice.splits).blocks;
  return {blocks, wave_efficiency(blocks, device)};
}

}  // namespace

Choice choose_kernel(const ConvProblem& problem, DataType type, bool count_zero, const DeviceProperties& device) {
  return fastest_kernel(Operation::conv, type, count_zero, problem, device);
}

Choice choose_kernel(const LinearProblem& problem, DataType type, bool count_zero, const DeviceProperties& device) {
  return fastest_kernel(Operation::linear, type, count_zero, problem, device);
}

Choice choose_way(const ConvProblem& problem, const KernelInfo& kernel, const DeviceProperties& device) {
  return best_way(problem, kernel, device);
}

Choice choose_way(const LinearProblem& problem, const KernelInfo& kernel, const DeviceProperties& device) {
  return best_way(problem, kernel, device);
}

Waves count_waves(const ConvProblem& problem, const Choice& choice, const DeviceProperties& device) {
  return waves_of(problem, choice, device);
}

Waves count_waves(const LinearProblem& problem, const Choice& choice, const DeviceProperties& device) {
  return waves_of(problem, choice, device);
}

}  // namespace flopcuda::cuda
