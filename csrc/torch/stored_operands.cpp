// See stored_operands.h.
#include "torch/stored_operands.h"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>

#include <array>

#include "cuda/tap_channels.h"

namespace flopcuda {
namespace {

// All windows of an axis, with their taps as a dimension of their own behind all others. A view, unless windows reach
// into the padding.
at::Tensor windows_of(const at::Tensor& tensor, int64_t dimension, const Axis& axis) {
  const int64_t behind = cuda::padding_behind(axis);
  at::Tensor padded = tensor;
  if (axis.pad > 0 || behind > 0) {
    std::vector<int64_t> padding(2 * (tensor.dim() - dimension), 0);  // from the last dimension to this one
    padding[padding.size() - 2] = axis.pad;
    padding.back() = behind;
    padded = at::constant_pad_nd(tensor, padding);
  }
  return padded.unfold(dimension, (axis.kernel_size - 1) * axis.dilation + 1, axis.stride)
      .narrow(dimension, 0, axis.out_size)
      .slice(-1, 0, std::nullopt, axis.dilation);
}

// Dense, at a multiple of 16 bytes. So many last dimensions are a row, with as many zeros behind them as the kernel
// takes.
at::Tensor stored_rows(const at::Tensor& tensor, int64_t row_dimensions, const cuda::KernelInfo& kernel) {
  const at::IntArrayRef row = tensor.sizes().slice(tensor.dim() - row_dimensions);
  const int64_t length = c10::multiply_integers(row);
  const int64_t missing = cuda::stored_length(kernel, length) - length;
  if (missing == 0) {
    const at::Tensor dense = tensor.flatten(-row_dimensions, -1).contiguous();
    const bool starts_askew = reinterpret_cast<uintptr_t>(dense.const_data_ptr()) % 16 != 0;
    return starts_askew ? dense.clone() : dense;
  }
  std::vector<int64_t> shape = tensor.sizes().slice(0, tensor.dim() - row_dimensions).vec();
  shape.push_back(length + missing);
  const at::Tensor stored = at::empty(shape, tensor.options().memory_format(std::nullopt));
  stored.narrow(-1, 0, length).unflatten(-1, row).copy_(tensor);
  stored.narrow(-1, length, missing).zero_();
  return stored;
}

// The axes follow `channels`, and move in front of what precedes it, but for the first dimension.
at::Tensor channels_last(at::Tensor tensor, int64_t channels, bool is_weight, const ConvProblem& problem,
                         const cuda::Choice& choice) {
  const ConvProblem computed = cuda::as_computed(choice, problem);
  const std::array<const Axis*, 3> given = {&problem.width, &problem.height, &problem.depth};
  const std::array<const Axis*, 3> taken = {&computed.width, &computed.height, &computed.depth};
  const int64_t axes = tensor.dim() - channels - 1;
  int64_t merged = 0;
  std::vector<int64_t> from, to;
  for (int64_t i = 0; i < axes; ++i) {  // from the last
    const int64_t taps = given[i]->kernel_size;
    from.push_back(-1 - i);
    to.push_back(axes - i);
    if (taken[i]->kernel_size == taps) continue;
    const Axis axis = is_weight ? Axis{taps, 1, taps, 1, 0, 1} : *given[i];
    tensor = windows_of(tensor, tensor.dim() - 1 - i, axis).movedim(-1, channels + 1);
    ++merged;
  }
  return stored_rows(tensor.movedim(from, to), 1 + merged, *choice.kernel);
}

}  // namespace

at::Tensor with_stored_rows(const at::Tensor& tensor, const cuda::KernelInfo& kernel) {
  return stored_rows(tensor, 1, kernel);
}

at::Tensor stored_images(const at::Tensor& images, const ConvProblem& problem, const cuda::Choice& choice) {
  return channels_last(images, 2, false, problem, choice);
}

at::Tensor stored_weight(const at::Tensor& weight, const ConvProblem& problem, const cuda::Choice& choice) {
  return channels_last(weight, 1, true, problem, choice);
}

}  // namespace flopcuda
