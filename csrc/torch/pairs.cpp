// Channels that are neighbours in memory, and features, are pairs already, but for the last one of odd numbers.
#include "torch/pairs.h"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>

#include <vector>

#include "cpu/pairs.h"
#include "torch/dense.h"

namespace flopcuda {
namespace {

at::Tensor with_even_channels(const at::Tensor& tensor, int64_t groups) {
  const int64_t channels = tensor.size(1) / groups;
  if (channels % 2 == 0) return tensor;
  std::vector<int64_t> padding(2 * (tensor.dim() - 1), 0);  // of the last axis before that of the others
  padding.back() = 1;
  return at::constant_pad_nd(tensor.unflatten(1, {groups, channels}), padding).flatten(1, 2);
}

at::Tensor with_even_features(const at::Tensor& tensor) {
  return tensor.size(-1) % 2 == 0 ? tensor : at::constant_pad_nd(tensor, {0, 1});
}

}  // namespace

at::Tensor paired_channels(const at::Tensor& original, int64_t groups) {
  const at::Tensor tensor = with_even_channels(original, groups);
  const at::Tensor channels_last = tensor.movedim(1, -1);
  if (channels_last.is_contiguous()) return dense(paired_features(channels_last).movedim(-1, 1));

  const at::Tensor numbers = tensor.contiguous();
  std::vector<int64_t> shape = tensor.sizes().vec();
  shape[1] /= 2;
  const at::Tensor pairs = at::empty(shape, tensor.options().dtype(at::kFloat).memory_format(std::nullopt));
  const int64_t count = shape[0] * shape[1];
  if (pairs.numel() == 0) return pairs;
  cpu::pair_up(static_cast<const cpu::BFloat16*>(numbers.const_data_ptr()), count, pairs.numel() / count,
               pairs.mutable_data_ptr<float>());
  return pairs;
}

at::Tensor paired_features(const at::Tensor& original) {
  const at::Tensor tensor = with_even_features(original);
  const at::Tensor numbers = tensor.contiguous();
  std::vector<int64_t> shape = tensor.sizes().vec();
  shape.back() /= 2;
  // Flat, since strides of axes of one element may be any.
  return (numbers.storage_offset() % 2 == 0 ? numbers : numbers.clone()).view({-1}).view(at::kFloat).view(shape);
}

}  // namespace flopcuda
