// See patches.h.
#include "cuda/patches.h"

#include "cuda/gemm_shape.h"

namespace flopcuda::cuda {
namespace {

void merge_taps(int64_t& channels, Axis& axis) {
  if (patch_order(axis) == PatchOrder::none) return;
  channels *= axis.kernel_size;
  axis = {axis.out_size, axis.out_size, 1, 1, 0, 1};
}

int64_t count_slices(const KernelInfo& kernel, const ConvProblem& problem) {
  return count_taps(problem) * divide_up(problem.in_channels / problem.groups, kernel.block_k);
}

}  // namespace

PatchOrder patch_order(const Axis& axis) {
  const bool meets_padding = axis.pad > 0 || axis.out_size * axis.kernel_size > axis.in_size;
  if (axis.kernel_size == 1 || meets_padding) return PatchOrder::none;
  if (axis.dilation == 1 && axis.stride == axis.kernel_size) return PatchOrder::taps_of_output;
  const bool is_one_output = axis.out_size == 1 && axis.dilation == 1;
  const bool steps_by_one = axis.stride == 1 && axis.dilation == axis.out_size;
  return is_one_output || steps_by_one ? PatchOrder::outputs_of_tap : PatchOrder::none;
}

ConvProblem as_computed(const KernelInfo& kernel, const ConvProblem& problem) {
  if (!has_channels_last(kernel)) return problem;
  ConvProblem merged = problem;
  for (Axis* axis : {&merged.depth, &merged.height, &merged.width}) merge_taps(merged.in_channels, *axis);
  return count_slices(kernel, merged) < count_slices(kernel, problem) ? merged : problem;
}

int64_t count_segments(const KernelInfo& kernel, const ConvProblem& problem) {
  return has_channels_last(kernel) ? count_taps(as_computed(kernel, problem)) : 1;
}

}  // namespace flopcuda::cuda
