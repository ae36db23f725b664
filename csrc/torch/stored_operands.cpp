// See stored_operands.h.
#include "torch/stored_operands.h"

#include <ATen/ops/constant_pad_nd.h>

#include <array>

#include "cuda/patches.h"

namespace flopcuda {
namespace {

using cuda::PatchOrder;

// An axis of a tensor whose taps are to be channels: of so many outputs, one in a weight.
struct MergedAxis {
  int64_t dimension, outputs, taps;
  PatchOrder order;
};

// A view in which the taps of an axis are a dimension of their own behind the channels.
at::Tensor with_taps_behind(const at::Tensor& tensor, int64_t channels, const MergedAxis& axis) {
  const auto& [dimension, outputs, taps, order] = axis;
  const at::Tensor whole = tensor.narrow(dimension, 0, outputs * taps);
  return order == PatchOrder::taps_of_output
             ? whole.unflatten(dimension, {outputs, taps}).movedim(dimension + 1, channels + 1)
             : whole.unflatten(dimension, {taps, outputs}).movedim(dimension, channels + 1);
}

// The axes follow `channels`, and move in front of what precedes it, but for the first dimension.
at::Tensor channels_last(at::Tensor tensor, int64_t channels, bool is_weight, const ConvProblem& problem,
                         const cuda::KernelInfo& kernel) {
  const ConvProblem computed = cuda::as_computed(kernel, problem);
  const std::array<const Axis*, 3> given = {&problem.width, &problem.height, &problem.depth};
  const std::array<const Axis*, 3> taken = {&computed.width, &computed.height, &computed.depth};
  const int64_t axes = tensor.dim() - channels - 1;
  int64_t merged = 0;
  std::vector<int64_t> from, to;
  for (int64_t i = 0; i < axes; ++i) {  // from the last
    const auto& [in_size, outputs, taps, stride, pad, dilation] = *given[i];
    from.push_back(-1 - i);
    to.push_back(axes - i);
    if (taken[i]->kernel_size == taps) continue;
    const MergedAxis axis{tensor.dim() - 1 - i, is_weight ? 1 : outputs, taps, cuda::patch_order(*given[i])};
    tensor = with_taps_behind(tensor, channels, axis);
    ++merged;
  }
  return with_stored_rows(tensor.movedim(from, to).flatten(-1 - merged, -1), kernel);
}

}  // namespace

at::Tensor with_stored_rows(const at::Tensor& tensor, const cuda::KernelInfo& kernel) {
  const int64_t missing = cuda::stored_length(kernel, tensor.size(-1)) - tensor.size(-1);
  const at::Tensor dense = (missing > 0 ? at::constant_pad_nd(tensor, {0, missing}) : tensor).contiguous();
  const bool starts_askew = reinterpret_cast<uintptr_t>(dense.const_data_ptr()) % 16 != 0;
  return starts_askew ? dense.clone() : dense;
}

at::Tensor stored_images(const at::Tensor& images, const ConvProblem& problem, const cuda::KernelInfo& kernel) {
  return channels_last(images, 2, false, problem, kernel);
}

at::Tensor stored_weight(const at::Tensor& weight, const ConvProblem& problem, const cuda::KernelInfo& kernel) {
  return channels_last(weight, 1, true, problem, kernel);
}

}  // namespace flopcuda
