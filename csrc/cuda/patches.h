// Convolutions of patches, in which every input belongs to one tap of one output: along such an axis, taps can become
// channels without storing any input twice.
#pragma once

#include "common/problem.h"
#include "cuda/plan.h"

namespace flopcuda::cuda {

// Whether taps lie beside one another, and an output's beside the next one's; or outputs beside one another, and a
// tap's beside the next one's. The latter has a kernel as large as the image, or the gradient of the former's weight.
enum class PatchOrder { none, taps_of_output, outputs_of_tap };
PatchOrder patch_order(const Axis& axis);

// The problem as the kernel takes it. On tensor cores, no slice has products of two taps: where channels are too few to
// fill a slice, the taps of patches become channels, those of the width last. Outputs and products remain the same.
ConvProblem as_computed(const KernelInfo& kernel, const ConvProblem& problem);
inline LinearProblem as_computed(const KernelInfo&, const LinearProblem& problem) { return problem; }

// Equal parts of the reduction, of which no slice has products of two.
int64_t count_segments(const KernelInfo& kernel, const ConvProblem& problem);
inline int64_t count_segments(const KernelInfo&, const LinearProblem&) { return 1; }

}  // namespace flopcuda::cuda
