// The tensors of one launch.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "common/counters.h"
#include "common/problem.h"
#include "cpu/kernels.h"
#include "cuda/plan.h"
#include "torch/problems.h"

namespace flopcuda {

std::vector<int64_t> output_shape(const ConvProblem& problem, const at::Tensor& input);

// Of a linear layer or of a batch of matrix products.
std::vector<int64_t> output_shape(const LinearProblem& problem, const at::Tensor& input);

// A call of `to` that does nothing is a part of a small layer's time.
inline at::Tensor cast(const at::Tensor& tensor, at::ScalarType type) {
  return tensor.scalar_type() == type ? tensor : tensor.to(type);
}

// Dense, on one device, and alive as long as this is.
struct Operands {
  at::Tensor input;
  at::Tensor weight;        // may have strides, where a kernel on the CPU takes them
  bool flips_taps = false;  // that a kernel on the CPU is to read the last tap of every axis first
  OptionalTensor bias;
  at::Tensor output;  // as the kernel writes it
  at::Tensor result;  // the same, with the operator's dimensions
  at::Tensor records;
  at::Tensor counters;  // the first of those
  at::Tensor sums;      // bytes

  // input, weight: as the kernel takes them.
  Operands(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias, at::IntArrayRef output_shape,
           const cuda::WorkspaceSize& workspace = {});

  Counters& record() const { return *reinterpret_cast<Counters*>(counters.mutable_data_ptr<int64_t>()); }

  template <class Scalar, class Weight = Scalar>
  cpu::Operands<Scalar, Weight> pointers(cpu::KeptWeight* kept = nullptr) const {
    return {input.const_data_ptr<Scalar>(),
            static_cast<const Weight*>(weight.const_data_ptr()),
            bias ? bias->const_data_ptr<Scalar>() : nullptr,
            output.mutable_data_ptr<Scalar>(),
            weight_layout(),
            kept};
  }

  std::optional<cpu::WeightLayout> weight_layout() const;

  cuda::Tensors device_pointers(cuda::DataType type) const;

  // What a split kernel writes besides.
  std::vector<at::Tensor> workspace() const;
};

}  // namespace flopcuda
