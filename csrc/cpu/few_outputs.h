// Convolutions of planes that have few outputs each, by kernels that are large planes themselves: gradients of
// depthwise layers' weights.
#pragma once

#include "kernels.h"

namespace flopcuda::cpu {

// As conv(), for the problems that has_few_outputs() accepts.
template <class Scalar>
void few_outputs(const ConvProblem& problem, const Operands<Scalar>& operands, bool count_zero, Counters& counters);

}  // namespace flopcuda::cpu
