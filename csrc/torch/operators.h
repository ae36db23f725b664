// The counted operators, for any device that computes problems: for those of both kinds, it has a static `run`, and for
// matrix products `run_matmul`, which knows how it takes the second factor. Both say in last_launch() what they
// launched.
#pragma once

#include <torch/library.h>

#include <tuple>
#include <vector>

#include "torch/launched.h"
#include "torch/operands.h"
#include "torch/problems.h"

namespace flopcuda {

using Result = std::tuple<at::Tensor, at::Tensor>;

// How an operator is to be computed.
struct Options {
  bool count_zero;
  bool allow_tf32;            // of float32, in CUDA
  bool keeps_weight = false;  // packed, on the CPU
  bool flips_taps = false;    // reads the last one of every axis first
};

// torch keeps a channels_last input's layout in the output; so does a counted layer.
inline at::Tensor with_layout_of(const at::Tensor& output, const at::Tensor& input, const at::Tensor& weight) {
  const auto layout = output.dim() == 5 ? at::MemoryFormat::ChannelsLast3d : at::MemoryFormat::ChannelsLast;
  const bool channels_last = input.suggest_memory_format() == layout || weight.suggest_memory_format() == layout;
  return output.contiguous(channels_last ? layout : at::MemoryFormat::Contiguous);
}

// The weight with the last tap of every axis first.
inline at::Tensor flipped_weight(const at::Tensor& weight) {
  std::vector<int64_t> axes;
  for (int64_t axis = 2; axis < weight.dim(); ++axis) axes.push_back(axis);
  return weight.flip(axes);
}

template <class Device, int axes>
Result conv(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias, at::IntArrayRef stride,
            at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups, bool count_zero, bool allow_tf32,
            bool flipped) {
  const auto problem = conv_problem(axes, input, weight, bias, {stride, padding, dilation}, groups);
  const char* const op = axes == 3 ? "conv3d" : "conv2d";
  const Operands operands = Device::run(op, problem, input, weight, bias, {count_zero, allow_tf32, true, flipped});
  return {with_layout_of(cast(operands.result, input.scalar_type()), input, weight), operands.counters};
}

template <class Device>
Result linear(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias, bool count_zero,
              bool allow_tf32) {
  const auto problem = linear_problem(input, weight, bias);
  const Operands operands = Device::run("linear", problem, input, weight, bias, {count_zero, allow_tf32, true});
  return {cast(operands.result, input.scalar_type()), operands.counters};
}

template <class Device>
Result matmul(const at::Tensor& input, const at::Tensor& weight, const std::optional<std::string>& triangle,
              bool count_zero, bool allow_tf32) {
  const auto problem = matmul_problem(input, weight, triangle, count_zero);
  const Options options{count_zero, allow_tf32};
  const Operands operands = Device::run_matmul(problem, input, weight, options);
  return {cast(operands.result, input.scalar_type()), operands.counters};
}

template <class Device>
void implement(torch::Library& library) {
  library.impl("conv2d", conv<Device, 2>);
  library.impl("conv3d", conv<Device, 3>);
  library.impl("linear", linear<Device>);
  library.impl("matmul", matmul<Device>);
}

}  // namespace flopcuda
