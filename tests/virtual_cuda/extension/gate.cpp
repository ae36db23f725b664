// leaky_gate(a, b, slope) = a * (b > 0 ? b : slope * b): schemas and the CPU's kernels.
#include <ATen/core/Tensor.h>
#include <ATen/ops/where.h>
#include <torch/library.h>
#include <torch/python.h>

namespace {

at::Tensor leaky_gate(const at::Tensor& a, const at::Tensor& b, double slope) {
  return a * at::where(b > 0, b, slope * b);
}

std::tuple<at::Tensor, at::Tensor> leaky_gate_backward(const at::Tensor& grad, const at::Tensor& a, const at::Tensor& b,
                                                       double slope) {
  return {grad * at::where(b > 0, b, slope * b), at::where(b > 0, grad * a, slope * grad * a)};
}

}  // namespace

TORCH_LIBRARY(gate_sample, library) {
  library.def("leaky_gate(Tensor a, Tensor b, float slope) -> Tensor");
  library.def("leaky_gate_backward(Tensor grad, Tensor a, Tensor b, float slope) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(gate_sample, CPU, library) {
  library.impl("leaky_gate", leaky_gate);
  library.impl("leaky_gate_backward", leaky_gate_backward);
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {}
