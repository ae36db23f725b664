// See cuda_operands.h.
#include "torch/cuda_operands.h"

#include <algorithm>

#include "torch/stored_operands.h"

namespace flopcuda {
namespace {

at::ScalarType scalar_type(cuda::DataType type) {
  switch (type) {
    case cuda::DataType::float64:
      return at::kDouble;
    case cuda::DataType::float16:
      return at::kHalf;
    case cuda::DataType::bfloat16:
      return at::kBFloat16;
    default:
      return at::kFloat;
  }
}

// Row-major as the problem says, of a type that kernels compute in.
template <class Problem>
Operands dense_operands(const Problem& problem, const at::Tensor& input, const at::Tensor& weight,
                        const OptionalTensor& bias, at::ScalarType type, const cuda::WorkspaceSize& workspace) {
  return {cast(input, type).contiguous(), cast(weight, type).contiguous(), bias, output_shape(problem, input),
          workspace};
}

Operands tensor_core_operands(const LinearProblem& problem, const at::Tensor& input, const at::Tensor& weight,
                              const OptionalTensor& bias, const cuda::Choice& choice,
                              const cuda::WorkspaceSize& workspace) {
  return {with_stored_rows(input, *choice.kernel), with_stored_rows(weight, *choice.kernel), bias,
          output_shape(problem, input), workspace};
}

// Channels-last; plan.h says how they lie. Nothing is copied of what is so already.
Operands tensor_core_operands(const ConvProblem& problem, const at::Tensor& input, const at::Tensor& weight,
                              const OptionalTensor& bias, const cuda::Choice& choice,
                              const cuda::WorkspaceSize& workspace) {
  const at::Tensor by_group = input.unflatten(1, {problem.groups, problem.in_channels / problem.groups});
  std::vector<int64_t> shape = output_shape(problem, input);
  std::rotate(shape.begin() + 1, shape.begin() + 2, shape.end());
  Operands operands(stored_images(by_group, problem, choice), stored_weight(weight, problem, choice), bias, shape,
                    workspace);
  operands.result = operands.output.movedim(-1, 1);
  return operands;
}

template <class Problem>
Operands operands_of(const cuda::Choice& choice, const Problem& problem, const at::Tensor& input,
                     const at::Tensor& weight, const OptionalTensor& bias) {
  const cuda::KernelInfo& kernel = *choice.kernel;
  const cuda::WorkspaceSize workspace = cuda::workspace_of(problem, choice);
  return cuda::is_for_tensor_cores(kernel)
             ? tensor_core_operands(problem, input, weight, bias, choice, workspace)
             : dense_operands(problem, input, weight, bias, scalar_type(kernel.type), workspace);
}

}  // namespace

cuda::DataType device_type(const at::Tensor& tensor, bool allow_tf32) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return cuda::DataType::float64;
    case at::kHalf:
      return cuda::DataType::float16;
    case at::kBFloat16:
      return cuda::DataType::bfloat16;
    default:
      return allow_tf32 ? cuda::DataType::tf32 : cuda::DataType::float32;
  }
}

Operands operands_for(const cuda::Choice& choice, const ConvProblem& problem, const at::Tensor& input,
                      const at::Tensor& weight, const OptionalTensor& bias) {
  return operands_of(choice, problem, input, weight, bias);
}

Operands operands_for(const cuda::Choice& choice, const LinearProblem& problem, const at::Tensor& input,
                      const at::Tensor& weight, const OptionalTensor& bias) {
  return operands_of(choice, problem, input, weight, bias);
}

}  // namespace flopcuda
