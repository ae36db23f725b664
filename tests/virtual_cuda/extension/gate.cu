// leaky_gate on CUDA, as a third party writes it: torch's tensors, guards, dispatch over types and launch checks.
#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void forward_kernel(int64_t count, const T* a, const T* b, T slope, T* result) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) result[i] = a[i] * (b[i] > 0 ? b[i] : slope * b[i]);
}

template <class T>
__global__ void backward_kernel(int64_t count, const T* grad, const T* a, const T* b, T slope, T* grad_a, T* grad_b) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  grad_a[i] = grad[i] * (b[i] > 0 ? b[i] : slope * b[i]);
  grad_b[i] = grad[i] * a[i] * (b[i] > 0 ? T(1) : slope);
}

void check(const at::Tensor& a, const at::Tensor& b) {
  TORCH_CHECK(a.sizes() == b.sizes() && a.scalar_type() == b.scalar_type() && a.device() == b.device(),
              "leaky_gate: a and b must be alike");
}

unsigned blocks_for(int64_t count) { return static_cast<unsigned>((count + kThreads - 1) / kThreads); }

at::Tensor leaky_gate(const at::Tensor& a, const at::Tensor& b, double slope) {
  check(a, b);
  const c10::cuda::CUDAGuard guard(a.device());
  const at::Tensor dense_a = a.contiguous(), dense_b = b.contiguous();
  at::Tensor result = at::empty_like(dense_a);
  if (result.numel() == 0) return result;
  AT_DISPATCH_FLOATING_TYPES(a.scalar_type(), "leaky_gate", [&] {
    forward_kernel<scalar_t><<<blocks_for(a.numel()), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
        a.numel(), dense_a.const_data_ptr<scalar_t>(), dense_b.const_data_ptr<scalar_t>(), static_cast<scalar_t>(slope),
        result.mutable_data_ptr<scalar_t>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return result;
}

std::tuple<at::Tensor, at::Tensor> leaky_gate_backward(const at::Tensor& grad, const at::Tensor& a, const at::Tensor& b,
                                                       double slope) {
  check(grad, a);
  check(a, b);
  const c10::cuda::CUDAGuard guard(a.device());
  const at::Tensor dense_grad = grad.contiguous(), dense_a = a.contiguous(), dense_b = b.contiguous();
  at::Tensor grad_a = at::empty_like(dense_a), grad_b = at::empty_like(dense_b);
  if (grad.numel() == 0) return {grad_a, grad_b};
  AT_DISPATCH_FLOATING_TYPES(a.scalar_type(), "leaky_gate_backward", [&] {
    backward_kernel<scalar_t><<<blocks_for(a.numel()), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
        a.numel(), dense_grad.const_data_ptr<scalar_t>(), dense_a.const_data_ptr<scalar_t>(),
        dense_b.const_data_ptr<scalar_t>(), static_cast<scalar_t>(slope), grad_a.mutable_data_ptr<scalar_t>(),
        grad_b.mutable_data_ptr<scalar_t>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {grad_a, grad_b};
}

}  // namespace

TORCH_LIBRARY_IMPL(gate_sample, CUDA, library) {
  library.impl("leaky_gate", leaky_gate);
  library.impl("leaky_gate_backward", leaky_gate_backward);
}
