// The torch operators: schemas, argument checks, tensors to raw pointers. With autograd and fake kernels added in
// flopcuda/ops.py, this is the only C++ that includes torch.
//
// An operator returns its output and the launch's counter record, an int64 tensor of [mul, add, pad, zero, lane] on the
// device that computed it. The record is a second output and not hidden state, so that torch's own machinery (streams,
// graph capture, functionalisation, tracing) carries it like any other tensor.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "common/counters.h"
#include "common/problem.h"
#include "cpu/kernels.h"

#ifdef FLOPCUDA_WITH_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "cuda/kernels.h"
#include "cuda/plan.h"
#endif

namespace flopcuda {
namespace {

using Result = std::tuple<at::Tensor, at::Tensor>;
using OptionalTensor = std::optional<at::Tensor>;

static_assert(sizeof(Counters) == 5 * sizeof(int64_t), "the record is read as five int64");
constexpr int64_t kCounterFields = 5;

void check_operand(const char* op, const char* name, const at::Tensor& operand, const at::Tensor& input) {
  TORCH_CHECK_TYPE(operand.scalar_type() == at::kFloat, op, ": ", name, " has dtype ", operand.scalar_type(),
                   ", but the counted kernels take float32 only");
  TORCH_CHECK(operand.device() == input.device(), op, ": ", name, " is on ", operand.device(), ", but input is on ",
              input.device());
}

void check_operands(const char* op, const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                    int64_t out_features) {
  check_operand(op, "input", input, input);
  check_operand(op, "weight", weight, input);
  if (!bias) return;
  check_operand(op, "bias", *bias, input);
  TORCH_CHECK(bias->dim() == 1 && bias->size(0) == out_features, op, ": bias has shape ", bias->sizes(),
              ", but weight needs [", out_features, "]");
}

int64_t output_size(const char* axis, int64_t in, int64_t pad_before, int64_t pad_after, int64_t dilation,
                    int64_t kernel, int64_t stride) {
  const int64_t padded = in + pad_before + pad_after;
  const int64_t window = dilation * (kernel - 1) + 1;
  TORCH_CHECK(padded >= window, "conv2d: the padded input ", axis, " (", padded,
              ") is smaller than the dilated kernel (", window, ")");
  return (padded - window) / stride + 1;
}

Conv2dProblem conv2d_problem(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                             at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                             int64_t groups) {
  TORCH_CHECK(input.dim() == 4, "conv2d: input must be [batch, channels, height, width], got shape ", input.sizes());
  TORCH_CHECK(weight.dim() == 4,
              "conv2d: weight must be [out_channels, in_channels / groups, height, width], got shape ", weight.sizes());
  TORCH_CHECK(stride.size() == 2 && padding.size() == 4 && dilation.size() == 2,
              "conv2d: stride and dilation take two integers, padding takes four (left, right, top, bottom)");
  for (int64_t value : stride) TORCH_CHECK(value > 0, "conv2d: stride must be positive, got ", stride);
  for (int64_t value : dilation) TORCH_CHECK(value > 0, "conv2d: dilation must be positive, got ", dilation);
  for (int64_t value : padding) TORCH_CHECK(value >= 0, "conv2d: padding must not be negative, got ", padding);
  for (int64_t axis = 0; axis < 4; ++axis) {
    TORCH_CHECK(weight.size(axis) > 0, "conv2d: weight has a zero-sized dimension: ", weight.sizes());
    TORCH_CHECK(axis == 0 || input.size(axis) > 0,
                "conv2d: input has a zero-sized dimension other than batch: ", input.sizes());
  }
  TORCH_CHECK(groups > 0 && input.size(1) == weight.size(1) * groups, "conv2d: input has ", input.size(1),
              " channels, but weight ", weight.sizes(), " with groups ", groups, " needs ", weight.size(1) * groups);
  TORCH_CHECK(weight.size(0) % groups == 0, "conv2d: ", weight.size(0), " output channels do not divide into ", groups,
              " groups");
  check_operands("conv2d", input, weight, bias, weight.size(0));

  Conv2dProblem problem{};
  problem.batch = input.size(0);
  problem.in_channels = input.size(1);
  problem.in_height = input.size(2);
  problem.in_width = input.size(3);
  problem.out_channels = weight.size(0);
  problem.kernel_height = weight.size(2);
  problem.kernel_width = weight.size(3);
  problem.stride_height = stride[0];
  problem.stride_width = stride[1];
  problem.pad_left = padding[0];
  problem.pad_top = padding[2];
  problem.dilation_height = dilation[0];
  problem.dilation_width = dilation[1];
  problem.groups = groups;
  problem.out_height =
      output_size("height", problem.in_height, padding[2], padding[3], dilation[0], problem.kernel_height, stride[0]);
  problem.out_width =
      output_size("width", problem.in_width, padding[0], padding[1], dilation[1], problem.kernel_width, stride[1]);
  return problem;
}

LinearProblem linear_problem(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias) {
  TORCH_CHECK(weight.dim() == 2, "linear: weight must be [out_features, in_features], got shape ", weight.sizes());
  TORCH_CHECK(input.dim() >= 1, "linear: input must have at least one dimension, got a scalar");
  TORCH_CHECK(input.size(-1) == weight.size(1), "linear: input's last dimension is ", input.size(-1),
              ", but weight needs ", weight.size(1));
  TORCH_CHECK(weight.numel() > 0, "linear: weight has a zero-sized dimension: ", weight.sizes());
  check_operands("linear", input, weight, bias, weight.size(0));
  return {input.numel() / weight.size(1), weight.size(1), weight.size(0)};
}

// torch keeps a channels_last input's layout in the output; so does a counted layer. The kernels compute in NCHW.
at::Tensor with_layout_of(const at::Tensor& output, const at::Tensor& input, const at::Tensor& weight) {
  const bool channels_last = input.suggest_memory_format() == at::MemoryFormat::ChannelsLast ||
                             weight.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
  return channels_last ? output.contiguous(at::MemoryFormat::ChannelsLast) : output;
}

at::Tensor empty_counters(const at::Tensor& input) {
  return at::zeros({kCounterFields}, input.options().dtype(at::kLong).memory_format(std::nullopt));
}

// The devices: each runs the raw kernel of either problem, all arguments being memory of that device.
struct Cpu {
  static void run(const Conv2dProblem& problem, const float* input, const float* weight, const float* bias,
                  float* output, bool count_zero, Counters* record, at::Device) {
    cpu::conv2d(problem, input, weight, bias, output, count_zero, *record);
  }
  static void run(const LinearProblem& problem, const float* input, const float* weight, const float* bias,
                  float* output, bool count_zero, Counters* record, at::Device) {
    cpu::linear(problem, input, weight, bias, output, count_zero, *record);
  }
};

#ifdef FLOPCUDA_WITH_CUDA
struct Cuda {
  static void run(const Conv2dProblem& problem, const float* input, const float* weight, const float* bias,
                  float* output, bool count_zero, Counters* record, at::Device device) {
    const c10::cuda::CUDAGuard guard(device);
    cuda::conv2d(problem, input, weight, bias, output, count_zero, record, current_stream(device));
  }
  static void run(const LinearProblem& problem, const float* input, const float* weight, const float* bias,
                  float* output, bool count_zero, Counters* record, at::Device device) {
    const c10::cuda::CUDAGuard guard(device);
    cuda::linear(problem, input, weight, bias, output, count_zero, record, current_stream(device));
  }

 private:
  static cudaStream_t current_stream(at::Device device) {
    return c10::cuda::getCurrentCUDAStream(device.index()).stream();
  }
};

cuda::LaunchPlan plan(const Conv2dProblem& problem, bool count_zero) {
  return cuda::plan_conv2d(problem, cuda::Tensors{}, count_zero);
}
cuda::LaunchPlan plan(const LinearProblem& problem, bool count_zero) {
  return cuda::plan_linear(problem, cuda::Tensors{}, count_zero);
}
#endif

template <class Device, class Problem>
Result run(const Problem& problem, const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
           const at::Tensor& output, bool count_zero) {
  const at::Tensor counters = empty_counters(input);
  if (output.numel() == 0) return {output, counters};
  const at::Tensor dense_input = input.contiguous();
  const at::Tensor dense_weight = weight.contiguous();
  const OptionalTensor dense_bias = bias ? OptionalTensor(bias->contiguous()) : std::nullopt;
  Device::run(problem, dense_input.const_data_ptr<float>(), dense_weight.const_data_ptr<float>(),
              dense_bias ? dense_bias->const_data_ptr<float>() : nullptr, output.mutable_data_ptr<float>(), count_zero,
              reinterpret_cast<Counters*>(counters.mutable_data_ptr<int64_t>()), input.device());
  return {output, counters};
}

template <class Device>
Result conv2d(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias, at::IntArrayRef stride,
              at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups, bool count_zero) {
  const auto problem = conv2d_problem(input, weight, bias, stride, padding, dilation, groups);
  const auto shape = {problem.batch, problem.out_channels, problem.out_height, problem.out_width};
  const auto dense = at::empty(shape, input.options());
  auto [output, counters] = run<Device>(problem, input, weight, bias, dense, count_zero);
  return {with_layout_of(output, input, weight), counters};
}

template <class Device>
Result linear(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias, bool count_zero) {
  const auto problem = linear_problem(input, weight, bias);
  auto shape = input.sizes().vec();
  shape.back() = problem.out_features;
  return run<Device>(problem, input, weight, bias, at::empty(shape, input.options()), count_zero);
}

// The kernel that an operator launches for these arguments, by the code that launches it: for a launch's record.
template <class Problem>
std::string kernel_name(const char* op, const Problem& problem, const at::Tensor& input, bool count_zero) {
  if (input.is_cpu()) return std::string(op) + "_f32_" + cpu::isa_name(cpu::selected_isa());
#ifdef FLOPCUDA_WITH_CUDA
  if (input.is_cuda()) return plan(problem, count_zero).kernel;
#endif
  return "none";
}

std::string conv2d_kernel(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                          at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups,
                          bool count_zero) {
  const auto problem = conv2d_problem(input, weight, bias, stride, padding, dilation, groups);
  return kernel_name("conv2d", problem, input, count_zero);
}

std::string linear_kernel(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                          bool count_zero) {
  return kernel_name("linear", linear_problem(input, weight, bias), input, count_zero);
}

}  // namespace

TORCH_LIBRARY(flopcuda, library) {
  library.def(
      "conv2d(Tensor input, Tensor weight, Tensor? bias, SymInt[2] stride, SymInt[4] padding, SymInt[2] dilation, "
      "SymInt groups, bool count_zero=False) -> (Tensor output, Tensor counters)");
  library.def(
      "linear(Tensor input, Tensor weight, Tensor? bias, bool count_zero=False) -> (Tensor output, Tensor counters)");
  library.def(
      "conv2d_kernel(Tensor input, Tensor weight, Tensor? bias, int[2] stride, int[4] padding, int[2] dilation, "
      "int groups, bool count_zero=False) -> str",
      conv2d_kernel);
  library.def("linear_kernel(Tensor input, Tensor weight, Tensor? bias, bool count_zero=False) -> str", linear_kernel);
}

TORCH_LIBRARY_IMPL(flopcuda, CPU, library) {
  library.impl("conv2d", conv2d<Cpu>);
  library.impl("linear", linear<Cpu>);
}

#ifdef FLOPCUDA_WITH_CUDA
TORCH_LIBRARY_IMPL(flopcuda, CUDA, library) {
  library.impl("conv2d", conv2d<Cuda>);
  library.impl("linear", linear<Cuda>);
}
#endif

}  // namespace flopcuda
