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
#include "cuda/plan.h"

#ifdef FLOPCUDA_WITH_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "cuda/launch.h"
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

// The tensors of one launch: dense, on one device, and alive as long as this is.
struct Operands {
  at::Tensor input, weight;
  OptionalTensor bias;
  at::Tensor output, counters;

  Operands(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias, at::IntArrayRef output_shape)
      : input(input.contiguous()),
        weight(weight.contiguous()),
        bias(bias ? OptionalTensor(bias->contiguous()) : std::nullopt),
        output(at::empty(output_shape, input.options().memory_format(std::nullopt))),
        counters(empty_counters(input)) {}

  cuda::Tensors pointers() const {
    return {input.const_data_ptr<float>(), weight.const_data_ptr<float>(),
            bias ? bias->const_data_ptr<float>() : nullptr, output.mutable_data_ptr<float>(),
            reinterpret_cast<Counters*>(counters.mutable_data_ptr<int64_t>())};
  }
};

// The devices: each computes either problem over operands of its own.
struct Cpu {
  static void run(const Conv2dProblem& problem, const Operands& operands, bool count_zero) {
    const cuda::Tensors t = operands.pointers();
    cpu::conv2d(problem, t.input, t.weight, t.bias, t.output, count_zero, *t.counters);
  }
  static void run(const LinearProblem& problem, const Operands& operands, bool count_zero) {
    const cuda::Tensors t = operands.pointers();
    cpu::linear(problem, t.input, t.weight, t.bias, t.output, count_zero, *t.counters);
  }
};

#ifdef FLOPCUDA_WITH_CUDA
struct Cuda {
  template <class Problem>
  static void run(const Problem& problem, const Operands& operands, bool count_zero) {
    const at::Device device = operands.input.device();
    const c10::cuda::CUDAGuard guard(device);
    cuda::launch(cuda::plan(problem, operands.pointers(), cuda::choose_kernel(problem, count_zero)),
                 c10::cuda::getCurrentCUDAStream(device.index()).stream());
  }
};
#endif

std::vector<int64_t> output_shape(const Conv2dProblem& problem, const at::Tensor&) {
  return {problem.batch, problem.out_channels, problem.out_height, problem.out_width};
}

std::vector<int64_t> output_shape(const LinearProblem& problem, const at::Tensor& input) {
  std::vector<int64_t> shape = input.sizes().vec();
  shape.back() = problem.out_features;
  return shape;
}

template <class Device, class Problem>
Operands run(const Problem& problem, const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
             bool count_zero) {
  Operands operands(input, weight, bias, output_shape(problem, input));
  if (operands.output.numel() > 0) Device::run(problem, operands, count_zero);
  return operands;
}

template <class Device>
Result conv2d(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias, at::IntArrayRef stride,
              at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups, bool count_zero) {
  const auto problem = conv2d_problem(input, weight, bias, stride, padding, dilation, groups);
  const Operands operands = run<Device>(problem, input, weight, bias, count_zero);
  return {with_layout_of(operands.output, input, weight), operands.counters};
}

template <class Device>
Result linear(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias, bool count_zero) {
  const Operands operands = run<Device>(linear_problem(input, weight, bias), input, weight, bias, count_zero);
  return {operands.output, operands.counters};
}

// What a CUDA device would be told to do, over tensors on the CPU: for the PTX virtual machine. Output and counters,
// which the launch is to fill; what else its parameters point to; kernel, grid, block, bytes of dynamic shared memory;
// and the parameters, uint8.
using PlannedResult = std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>, std::string, std::vector<int64_t>,
                                 std::vector<int64_t>, int64_t, at::Tensor>;

const cuda::KernelInfo& kernel_named(const std::string& name) {
  for (const cuda::KernelInfo& kernel : cuda::kernels()) {
    if (name == kernel.name) return kernel;
  }
  TORCH_CHECK(false, "flopcuda has no CUDA kernel named ", name);
}

std::vector<int64_t> extents(const cuda::Dim3& dim) { return {dim.x, dim.y, dim.z}; }

at::Tensor bytes_of(const std::vector<std::byte>& bytes) {
  const at::Tensor tensor = at::empty({static_cast<int64_t>(bytes.size())}, at::kByte);
  std::copy_n(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), tensor.mutable_data_ptr<uint8_t>());
  return tensor;
}

template <class Problem>
PlannedResult plan_over(const Problem& problem, const at::Tensor& input, const at::Tensor& weight,
                        const OptionalTensor& bias, bool count_zero, const std::optional<std::string>& kernel) {
  TORCH_CHECK(input.is_cpu(), "the PTX virtual machine takes tensors on the CPU, but input is on ", input.device());
  const Operands operands(input, weight, bias, output_shape(problem, input));
  const cuda::KernelInfo& chosen = kernel ? kernel_named(*kernel) : cuda::choose_kernel(problem, count_zero);
  const cuda::LaunchPlan launch = cuda::plan(problem, operands.pointers(), chosen);
  std::vector<at::Tensor> others = {operands.input, operands.weight};
  if (operands.bias) others.push_back(*operands.bias);
  return {operands.output,     operands.counters,          others,
          launch.kernel,       extents(launch.grid),       extents(launch.block),
          launch.shared_bytes, bytes_of(launch.parameters)};
}

PlannedResult conv2d_plan(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                          at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups,
                          bool count_zero, const std::optional<std::string>& kernel) {
  const auto problem = conv2d_problem(input, weight, bias, stride, padding, dilation, groups);
  return plan_over(problem, input, weight, bias, count_zero, kernel);
}

PlannedResult linear_plan(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                          bool count_zero, const std::optional<std::string>& kernel) {
  return plan_over(linear_problem(input, weight, bias), input, weight, bias, count_zero, kernel);
}

// The kernel that an operator launches for these arguments, by the code that launches it: for a launch's record.
template <class Problem>
std::string kernel_name(const char* op, const Problem& problem, const at::Tensor& input, bool count_zero) {
  if (input.is_cpu()) return std::string(op) + "_f32_" + cpu::isa_name(cpu::selected_isa());
  if (input.is_cuda()) return cuda::choose_kernel(problem, count_zero).name;
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
  library.def(
      "conv2d_plan(Tensor input, Tensor weight, Tensor? bias, int[2] stride, int[4] padding, int[2] dilation, "
      "int groups, bool count_zero=False, str? kernel=None) -> (Tensor output, Tensor counters, Tensor[] operands, "
      "str kernel, int[] grid, int[] block, int shared_bytes, Tensor parameters)",
      conv2d_plan);
  library.def(
      "linear_plan(Tensor input, Tensor weight, Tensor? bias, bool count_zero=False, str? kernel=None) -> "
      "(Tensor output, Tensor counters, Tensor[] operands, str kernel, int[] grid, int[] block, int shared_bytes, "
      "Tensor parameters)",
      linear_plan);
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
