// Taps that become channels. On tensor cores, no slice has products of two taps: where channels are too few to fill a
// slice, the copy that puts them last in memory puts taps among them.
#pragma once

#include "common/problem.h"
#include "cuda/plan.h"

namespace flopcuda::cuda {

// Whether the kernel can take the width's taps as channels where its windows overlap or meet padding: an input is then
// stored for every window, and zeros for the padding. choice.h says when that is worth it.
bool can_gather_width(const KernelInfo& kernel, const ConvProblem& problem);

// The problem as it is computed. Outputs and products remain the same; channels are followed by the taps that have
// become some, those of the width last. Taps of patches do wherever that saves slices, for nothing is stored twice by
// it: along such an axis, every input belongs to one tap of one output. Those of another width do if it is gathered.
ConvProblem as_computed(const Choice& choice, const ConvProblem& problem);

// The width that is gathered; or else an axis of one tap, which is in the image wherever the window lies.
Axis gathered_width(const Choice& choice, const ConvProblem& problem);

// Inputs behind the last one that the windows reach; negative, those that they do not.
int64_t padding_behind(const Axis& axis);

// Equal parts of the reduction, of which no slice has products of two.
int64_t count_segments(const Choice& choice, const ConvProblem& problem);
inline int64_t count_segments(const Choice&, const LinearProblem&) { return 1; }

// The numbers of the input as the kernel takes it: with the zeros that fill rows, and those of windows that overlap in
// each of them.
int64_t count_stored_inputs(const Choice& choice, const ConvProblem& problem);
int64_t count_stored_inputs(const Choice& choice, const LinearProblem& problem);

// Those of a copy in between, in which zeros surround the width; 0 if there is none.
int64_t count_padded_inputs(const Choice& choice, const ConvProblem& problem);
inline int64_t count_padded_inputs(const Choice&, const LinearProblem&) { return 0; }

}  // namespace flopcuda::cuda
