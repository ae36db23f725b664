// Channels that are neighbours in memory, and features, are pairs already.
#include "torch/pairs.h"

#include <ATen/ops/empty.h>

#include <vector>

#include "cpu/pairs.h"
#include "torch/dense.h"

namespace flopcuda {

at::Tensor paired_channels(const at::Tensor& tensor) {
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

at::Tensor paired_features(const at::Tensor& tensor) {
  const at::Tensor numbers = tensor.contiguous();
  std::vector<int64_t> shape = tensor.sizes().vec();
  shape.back() /= 2;
  // Flat, since strides of axes of one element may be any.
  return (numbers.storage_offset() % 2 == 0 ? numbers : numbers.clone()).view({-1}).view(at::kFloat).view(shape);
}

}  // namespace flopcuda
