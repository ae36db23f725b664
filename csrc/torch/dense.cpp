// Has the CPU kernels copy what they can, and torch the rest.
#include "torch/dense.h"

#include <ATen/ops/empty.h>

#include <vector>

#include "cpu/dense_copy.h"

namespace flopcuda {
namespace {

template <class Scalar>
bool is_copied(const at::Tensor& tensor, const at::Tensor& copy) {
  std::vector<cpu::StridedAxis> axes;
  for (int64_t axis = 0; axis < tensor.dim(); ++axis) axes.push_back({tensor.size(axis), tensor.stride(axis)});
  return cpu::copy_transposed(tensor.const_data_ptr<Scalar>(), axes, copy.mutable_data_ptr<Scalar>());
}

}  // namespace

at::Tensor dense(const at::Tensor& tensor) {
  if (tensor.is_contiguous() || tensor.is_neg() || tensor.numel() == 0) return tensor.contiguous();
  const at::Tensor copy = at::empty(tensor.sizes(), tensor.options().memory_format(at::MemoryFormat::Contiguous));
  const bool is_done =
      tensor.scalar_type() == at::kDouble ? is_copied<double>(tensor, copy) : is_copied<float>(tensor, copy);
  if (!is_done) copy.copy_(tensor);
  return copy;
}

}  // namespace flopcuda
