// Taps that become channels. On tensor cores, no slice has products of two taps: where channels are too few to fill a
// slice, the copy that puts them last in memory puts taps among them.
#pragma once

#include "common/problem.h"
#include "cuda/plan.h"

namespace flopcuda::cuda {

// The problem as the kernel takes it. Outputs and products remain the same; channels are followed by the taps that have
// become some, those of the width last.
//
// Taps of patches do, by which nothing is stored twice: along such an axis, every input belongs to one tap of one
// output. And those of a width whose windows overlap or meet padding, if that saves more time than it takes to store
// an input for every window; then zeros are stored for the padding.
ConvProblem as_computed(const KernelInfo& kernel, const ConvProblem& problem);

// The width whose windows overlap or meet padding, if its taps have become channels; or else an axis of one tap, which
// is in the image wherever the window lies.
Axis gathered_width(const KernelInfo& kernel, const ConvProblem& problem);

// Inputs behind the last one that the windows reach; negative, those that they do not.
int64_t padding_behind(const Axis& axis);

// Equal parts of the reduction, of which no slice has products of two.
int64_t count_segments(const KernelInfo& kernel, const ConvProblem& problem);
inline int64_t count_segments(const KernelInfo&, const LinearProblem&) { return 1; }

// The numbers of the input as the kernel takes it: with the zeros that fill rows, and those of windows that overlap in
// each of them.
int64_t count_stored_inputs(const KernelInfo& kernel, const ConvProblem& problem);
int64_t count_stored_inputs(const KernelInfo& kernel, const LinearProblem& problem);

// Those of a copy in between, in which zeros surround the width; 0 if there is none.
int64_t count_padded_inputs(const KernelInfo& kernel, const ConvProblem& problem);
inline int64_t count_padded_inputs(const KernelInfo&, const LinearProblem&) { return 0; }

}  // namespace flopcuda::cuda
