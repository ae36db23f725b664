// Depthwise convolutions: every output plane has one input plane and one small kernel of its own.
#pragma once

#include "kernels.h"

namespace flopcuda::cpu {

// Whether depthwise() takes the problem: one input channel in every group, two axes, and a kernel of a height and
// vertical stride that PlaneFamily has.
bool is_depthwise(const ConvProblem& problem);

// As conv(), for the problems that is_depthwise() accepts.
template <class Scalar>
void depthwise(const ConvProblem& problem, const Operands<Scalar>& operands, bool count_zero, Counters& counters);

}  // namespace flopcuda::cpu
