// See tap_channels.h.
#include "cuda/tap_channels.h"

#include <algorithm>

#include "cuda/gemm_shape.h"
#include "cuda/tiles.h"

namespace flopcuda::cuda {
namespace {

// Whether taps lie beside one another, and an output's beside the next one's; or outputs beside one another, and a
// tap's beside the next one's. The latter has a kernel as large as the image, or the gradient of the former's weight.
bool has_patches(const Axis& axis) {
  if (axis.kernel_size == 1 || axis.pad > 0 || axis.out_size * axis.kernel_size > axis.in_size) return false;
  if (axis.dilation == 1 && axis.stride == axis.kernel_size) return true;
  const bool is_one_output = axis.out_size == 1 && axis.dilation == 1;
  return is_one_output || (axis.stride == 1 && axis.dilation == axis.out_size);
}

void merge_taps(int64_t& channels, Axis& axis) {
  channels *= axis.kernel_size;
  axis = {axis.out_size, axis.out_size, 1, 1, 0, 1};
}

int64_t count_slices(const KernelInfo& kernel, const ConvProblem& problem) {
  return count_taps(problem) * divide_up(problem.in_channels / problem.groups, kernel.block_k);
}

ConvProblem with_merged_patches(const KernelInfo& kernel, const ConvProblem& problem) {
  ConvProblem merged = problem;
  for (Axis* axis : {&merged.depth, &merged.height, &merged.width}) {
    if (has_patches(*axis)) merge_taps(merged.in_channels, *axis);
  }
  return count_slices(kernel, merged) < count_slices(kernel, problem) ? merged : problem;
}

// Only kernels that know taps by bits count the padding of such a width: a bit for each of its taps. They count that of
// all products of a segment, not of a part.
bool can_gather(const KernelInfo& kernel, const Axis& width, int64_t sides) {
  const bool has_bits = kernel.max_sides == MAX_TABULATED_SIDES && sides <= kernel.max_sides;
  return has_bits && !kernel.is_split && width.kernel_size > 1 && !has_patches(width);
}

int64_t count_stored(const KernelInfo& kernel, const ConvProblem& computed) {
  const int64_t channels = stored_length(kernel, computed.in_channels / computed.groups);
  return checked_product("the number of stored inputs",
                         {computed.batch, computed.groups, channels, count_inputs(computed)});
}

// Of a copy in which zeros surround the width; 0 if windows do not reach into the padding.
int64_t count_padded(const ConvProblem& problem, const Axis& width) {
  const int64_t behind = padding_behind(width);
  if (width.pad == 0 && behind <= 0) return 0;
  return checked_product("the number of padded inputs", {problem.batch, problem.in_channels, problem.depth.in_size,
                                                         problem.height.in_size, width.pad + width.in_size + behind});
}

// Cycles of a multiprocessor, if there were one, for a launch and the copies of images before it. The device is the one
// that is assumed where none is known: tensors must lie alike on all, and for small tiles and large ones.
double estimate_cycles(const KernelInfo& kernel, const ConvProblem& computed, int64_t padded_inputs) {
  const DeviceProperties device;
  const double pixels = static_cast<double>(computed.batch) * count_pixels(computed);
  constexpr int64_t BLOCK_N = F16_64x64x32::BLOCK_N;
  const int64_t columns = divide_up(computed.out_channels / computed.groups, BLOCK_N) * BLOCK_N;
  const double multiply_adds = pixels * computed.groups * columns * count_slices(kernel, computed) * kernel.block_k;
  const double stored = count_stored(kernel, computed), outputs = pixels * computed.out_channels;
  const double multiplied = multiply_adds / device.rates[static_cast<int>(kernel.unit)];
  const double bytes_per_cycle = device.memory_bytes / scalar_bytes(kernel.type);
  return std::max(multiplied, (stored + outputs) / bytes_per_cycle) + (stored + 2.0 * padded_inputs) / bytes_per_cycle;
}

}  // namespace

ConvProblem as_computed(const KernelInfo& kernel, const ConvProblem& problem) {
  if (!has_channels_last(kernel)) return problem;
  const ConvProblem merged = with_merged_patches(kernel, problem);
  if (!can_gather(kernel, merged.width, count_sides(merged))) return merged;
  ConvProblem gathered = merged;
  merge_taps(gathered.in_channels, gathered.width);
  const double cycles = estimate_cycles(kernel, gathered, count_padded(merged, merged.width));
  return cycles < estimate_cycles(kernel, merged, 0) ? gathered : merged;
}

Axis gathered_width(const KernelInfo& kernel, const ConvProblem& problem) {
  const bool is_gathered = as_computed(kernel, problem).width.kernel_size != problem.width.kernel_size;
  return is_gathered && !has_patches(problem.width) ? problem.width : Axis{1, 1, 1, 0, 0, 1};
}

int64_t padding_behind(const Axis& axis) {
  const int64_t last_input = (axis.out_size - 1) * axis.stride + (axis.kernel_size - 1) * axis.dilation;
  return last_input + 1 - axis.pad - axis.in_size;
}

int64_t count_segments(const KernelInfo& kernel, const ConvProblem& problem) {
  return has_channels_last(kernel) ? count_taps(as_computed(kernel, problem)) : 1;
}

int64_t count_stored_inputs(const KernelInfo& kernel, const ConvProblem& problem) {
  return count_stored(kernel, as_computed(kernel, problem));
}

int64_t count_stored_inputs(const KernelInfo& kernel, const LinearProblem& problem) {
  return checked_product("the number of stored inputs",
                         {problem.batch, problem.rows, stored_length(kernel, problem.in_features)});
}

int64_t count_padded_inputs(const KernelInfo& kernel, const ConvProblem& problem) {
  return count_padded(problem, gathered_width(kernel, problem));
}

}  // namespace flopcuda::cuda
