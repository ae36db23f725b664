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

bool has_plain_values(const at::Tensor& tensor) {
  constexpr c10::DispatchKeySet kWrappers({c10::DispatchKey::Python, c10::DispatchKey::Batched,
                                           c10::DispatchKey::FuncTorchBatched, c10::DispatchKey::FuncTorchGradWrapper,
                                           c10::DispatchKey::Functionalize});
  return tensor.is_cpu() && !tensor.key_set().has_any(kWrappers);
}

at::Tensor dense(const at::Tensor& tensor) {
  const bool is_float = tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kDouble;
  if (!is_float || !has_plain_values(tensor) || tensor.is_contiguous() || tensor.is_neg() || tensor.numel() == 0) {
    return tensor.contiguous();
  }
  const at::Tensor copy = at::empty(tensor.sizes(), tensor.options().memory_format(at::MemoryFormat::Contiguous));
  const bool is_done =
      tensor.scalar_type() == at::kDouble ? is_copied<double>(tensor, copy) : is_copied<float>(tensor, copy);
  if (!is_done) copy.copy_(tensor);
  return copy;
}

}  // namespace flopcuda
