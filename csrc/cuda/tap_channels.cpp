// See tap_channels.h.
#include "cuda/tap_channels.h"

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

}  // namespace

// Only kernels that know taps by bits count the padding of such a width: a bit for each of its taps. They count that of
// all products of a segment, not of a part.
bool can_gather_width(const KernelInfo& kernel, const ConvProblem& problem) {
  const bool has_bits = has_channels_last(kernel) && kernel.max_sides == MAX_TABULATED_SIDES;
  if (!has_bits || kernel.is_split || problem.width.kernel_size == 1 || has_patches(problem.width)) return false;
  return count_sides(with_merged_patches(kernel, problem)) <= kernel.max_sides;
}

ConvProblem as_computed(const Choice& choice, const ConvProblem& problem) {
  if (!has_channels_last(*choice.kernel)) return problem;
  ConvProblem computed = with_merged_patches(*choice.kernel, problem);
  if (choice.gathers_width) merge_taps(computed.in_channels, computed.width);
  return computed;
}

Axis gathered_width(const Choice& choice, const ConvProblem& problem) {
  return choice.gathers_width ? problem.width : Axis{1, 1, 1, 0, 0, 1};
}

int64_t padding_behind(const Axis& axis) {
  const int64_t last_input = (axis.out_size - 1) * axis.stride + (axis.kernel_size - 1) * axis.dilation;
  return last_input + 1 - axis.pad - axis.in_size;
}

int64_t count_segments(const Choice& choice, const ConvProblem& problem) {
  return has_channels_last(*choice.kernel) ? count_taps(as_computed(choice, problem)) : 1;
}

int64_t count_stored_inputs(const Choice& choice, const ConvProblem& problem) {
  const ConvProblem computed = as_computed(choice, problem);
  const int64_t channels = stored_length(*choice.kernel, computed.in_channels / computed.groups);
  return checked_product("the number of stored inputs",
                         {computed.batch, computed.groups, channels, count_inputs(computed)});
}

int64_t count_stored_inputs(const Choice& choice, const LinearProblem& problem) {
  return checked_product("the number of stored inputs",
                         {problem.batch, problem.rows, stored_length(*choice.kernel, problem.in_features)});
}

int64_t count_padded_inputs(const Choice& choice, const ConvProblem& problem) {
  const Axis width = gathered_width(choice, problem);
  const int64_t behind = padding_behind(width);
  if (width.pad == 0 && behind <= 0) return 0;  // windows do not reach into the padding
  return checked_product("the number of padded inputs", {problem.batch, problem.in_channels, problem.depth.in_size,
                                                         problem.height.in_size, width.pad + width.in_size + behind});
}

}  // namespace flopcuda::cuda
