// See launches.h. What torch's own binding does for any operator's arguments and results takes longer than a small
// layer's products, and so does reading a record's tensor or the clock from Python.
#include "torch/launches.h"

#include <ATen/LegacyBatchedTensorImpl.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "torch/dense.h"
#include "torch/launched.h"
#include "torch/operators.h"

namespace py = pybind11;

namespace flopcuda {
namespace {

using Clock = std::chrono::steady_clock;
using Integers = std::vector<int64_t>;

// The counters of one launch; or of those that torch makes of it for each of a batch of gradients, whose sum can still
// be read when the batch is done.
at::Tensor sum_over_batches(const at::Tensor& counters) {
  const at::BatchedTensorImpl* const batches = at::maybeGetBatchedImpl(counters);
  if (!batches) return counters;
  return batches->value().movedim(batches->actualDim(0), -1).reshape({-1, counters.size(0)}).sum(0);
}

py::object values_or_tensor(const at::Tensor& counters) {
  if (!has_plain_values(counters)) return py::cast(counters);
  const int64_t* values = counters.const_data_ptr<int64_t>();
  return py::make_tuple(values[0], values[1], values[2], values[3], values[4]);
}

// Calls an operator below autograd, whose rules for it are flopcuda.autograd's.
template <class Call>
py::tuple launch(const Call& call) {
  last_launch() = {};
  const auto start = Clock::now();
  const Result result = [&call] {
    const py::gil_scoped_release no_gil;
    const at::AutoDispatchBelowAutograd no_autograd;
    return call();
  }();
  const std::chrono::duration<double> seconds = Clock::now() - start;
  const auto& [output, counters] = result;
  const Launched& launched = last_launch();
  return py::make_tuple(output, values_or_tensor(sum_over_batches(counters)), launched.kernel, seconds.count(),
                        launched.splits, launched.wave_efficiency);
}

template <class Signature>
c10::TypedOperatorHandle<Signature> operator_named(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

template <int axes>
py::tuple launch_conv(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                      const Integers& stride, const Integers& padding, const Integers& dilation, int64_t groups,
                      bool flipped, bool count_zero, bool allow_tf32) {
  using Signature = Result(const at::Tensor&, const at::Tensor&, const OptionalTensor&, c10::SymIntArrayRef,
                           c10::SymIntArrayRef, c10::SymIntArrayRef, c10::SymInt, bool, bool, bool);
  static const auto convolve = operator_named<Signature>(axes == 3 ? "flopcuda::conv3d" : "flopcuda::conv2d");
  return launch([&] {
    return convolve.call(input, weight, bias, c10::fromIntArrayRefSlow(stride), c10::fromIntArrayRefSlow(padding),
                         c10::fromIntArrayRefSlow(dilation), groups, count_zero, allow_tf32, flipped);
  });
}

py::tuple launch_linear(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias, bool count_zero,
                        bool allow_tf32) {
  using Signature = Result(const at::Tensor&, const at::Tensor&, const OptionalTensor&, bool, bool);
  static const auto multiply = operator_named<Signature>("flopcuda::linear");
  return launch([&] { return multiply.call(input, weight, bias, count_zero, allow_tf32); });
}

py::tuple launch_matmul(const at::Tensor& input, const at::Tensor& weight, const py::none&,
                        const std::optional<std::string>& triangle, bool count_zero, bool allow_tf32) {
  using Signature = Result(const at::Tensor&, const at::Tensor&, const std::optional<std::string>&, bool, bool);
  static const auto multiply = operator_named<Signature>("flopcuda::matmul");
  return launch([&] { return multiply.call(input, weight, triangle, count_zero, allow_tf32); });
}

constexpr const char* LAUNCH_DOC =
    "The operator of that name, below autograd, with its counters read and its time taken. Returns output; counters, "
    "a tuple, or the operator's tensor where that can't be read at once; kernel, seconds on the CPU's clock, splits "
    "and wave_efficiency, as flopcuda.backends.Execution has them.";

}  // namespace

void bind_launches(py::module_& module) {
  const auto define = [&module](const char* name, auto launch, const auto&... options) {
    module.def(name, torch::wrap_pybind_function(launch), LAUNCH_DOC, py::arg("input"), py::arg("weight"),
               py::arg("bias"), options..., py::kw_only(), py::arg("count_zero"), py::arg("allow_tf32"));
  };
  const auto define_conv = [&define](const char* name, auto launch) {
    define(name, launch, py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"),
           py::arg("flipped") = false);
  };
  define_conv("launch_conv2d", launch_conv<2>);
  define_conv("launch_conv3d", launch_conv<3>);
  define("launch_linear", launch_linear);
  define("launch_matmul", launch_matmul, py::arg("triangle") = py::none());
  module.def(
      "has_plain_values", torch::wrap_pybind_function(has_plain_values),
      "Whether a tensor's values lie in the host's memory, here and now: no device's, no transform's, no shape only.",
      py::arg("tensor"));
  module.def("dense", torch::wrap_pybind_function_no_gil(dense),
             "tensor.contiguous(), of images or filters whose channels lie the other way in less time.",
             py::arg("tensor"));
}

}  // namespace flopcuda
