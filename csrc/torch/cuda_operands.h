// The operands of a CUDA launch: brought into the type and the layout that its kernel takes.
#pragma once

#include "cuda/plan.h"
#include "torch/operands.h"

namespace flopcuda {

// What the operands may be multiplied as, of the types that problems.h lets pass.
cuda::DataType device_type(const at::Tensor& tensor, bool allow_tf32);

Operands operands_for(const cuda::Choice& choice, const ConvProblem& problem, const at::Tensor& input,
                      const at::Tensor& weight, const OptionalTensor& bias);
Operands operands_for(const cuda::Choice& choice, const LinearProblem& problem, const at::Tensor& input,
                      const at::Tensor& weight, const OptionalTensor& bias);

}  // namespace flopcuda
