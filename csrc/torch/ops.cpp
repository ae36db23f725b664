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

#include <algorithm>
#include <array>
#include <string>

#include "common/counters.h"
#include "common/problem.h"
#include "cpu/kernels.h"
#include "cuda/choice.h"
#include "cuda/plan.h"
#include "cuda/tap_channels.h"

#ifdef FLOPCUDA_WITH_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "cuda/launch.h"
#endif

#include "torch/kept_weights.h"
#include "torch/launched.h"
#include "torch/stored_operands.h"

namespace flopcuda {
namespace {

thread_local Launched last;

using Result = std::tuple<at::Tensor, at::Tensor>;
using OptionalTensor = std::optional<at::Tensor>;

static_assert(sizeof(Counters) == 5 * sizeof(int64_t), "the record is read as five int64");
constexpr int64_t kCounterFields = 5;

// How an operator is to be computed.
struct Options {
  bool count_zero;
  bool allow_tf32;            // of float32, in CUDA
  bool keeps_weight = false;  // packed, on the CPU
};

void check_operand(const std::string& op, const char* name, const at::Tensor& operand, const at::Tensor& input) {
  const at::ScalarType type = operand.scalar_type();
  const bool is_known = type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16;
  TORCH_CHECK_TYPE(is_known, op, ": ", name, " has dtype ", type,
                   ", but the counted kernels take float32, float64, float16 and bfloat16 only");
  TORCH_CHECK_TYPE(operand.scalar_type() == input.scalar_type(), op, ": ", name, " has dtype ", operand.scalar_type(),
                   ", but input has ", input.scalar_type());
  TORCH_CHECK(operand.device() == input.device(), op, ": ", name, " is on ", operand.device(), ", but input is on ",
              input.device());
}

void check_operands(const std::string& op, const at::Tensor& input, const at::Tensor& weight,
                    const OptionalTensor& bias, int64_t out_features) {
  check_operand(op, "input", input, input);
  check_operand(op, "weight", weight, input);
  if (!bias) return;
  check_operand(op, "bias", *bias, input);
  TORCH_CHECK(bias->dim() == 1 && bias->size(0) == out_features, op, ": bias has shape ", bias->sizes(),
              ", but weight needs [", out_features, "]");
}

constexpr std::array<const char*, 3> kAxisNames = {"depth", "height", "width"};

// "depth, height, width" or the last of them.
std::string axis_names(int64_t axes) {
  std::string names;
  for (size_t i = kAxisNames.size() - axes; i < kAxisNames.size(); ++i) names += std::string(", ") + kAxisNames[i];
  return names.substr(2);
}

// What the caller says of all axes; padding is before and after each axis, the last axis first.
struct Geometry {
  at::IntArrayRef stride, padding, dilation;
};

Axis make_axis(const std::string& op, const char* name, int64_t in, int64_t kernel, int64_t stride, int64_t pad_before,
               int64_t pad_after, int64_t dilation) {
  const int64_t padded = in + pad_before + pad_after;
  const int64_t window = dilation * (kernel - 1) + 1;
  TORCH_CHECK(padded >= window, op, ": the padded input ", name, " (", padded, ") is smaller than the dilated kernel (",
              window, ")");
  return {in, (padded - window) / stride + 1, kernel, stride, pad_before, dilation};
}

void check_geometry(const std::string& op, int64_t axes, const at::Tensor& input, const at::Tensor& weight,
                    const Geometry& geometry, int64_t groups) {
  const auto& [stride, padding, dilation] = geometry;
  TORCH_CHECK(input.dim() == axes + 2, op, ": input must be [batch, channels, ", axis_names(axes), "], got shape ",
              input.sizes());
  TORCH_CHECK(weight.dim() == axes + 2, op, ": weight must be [out_channels, in_channels / groups, ", axis_names(axes),
              "], got shape ", weight.sizes());
  TORCH_CHECK(int64_t(stride.size()) == axes && int64_t(padding.size()) == 2 * axes && int64_t(dilation.size()) == axes,
              op, ": stride and dilation take ", axes, " integers (", axis_names(axes), "), padding takes ", 2 * axes,
              " (before and after each, width first)");
  for (int64_t value : stride) TORCH_CHECK(value > 0, op, ": stride must be positive, got ", stride);
  for (int64_t value : dilation) TORCH_CHECK(value > 0, op, ": dilation must be positive, got ", dilation);
  for (int64_t value : padding) TORCH_CHECK(value >= 0, op, ": padding must not be negative, got ", padding);
  for (int64_t i = 0; i < axes + 2; ++i) {
    TORCH_CHECK(weight.size(i) > 0, op, ": weight has a zero-sized dimension: ", weight.sizes());
    TORCH_CHECK(i == 0 || input.size(i) > 0, op,
                ": input has a zero-sized dimension other than batch: ", input.sizes());
  }
  TORCH_CHECK(groups > 0 && input.size(1) == weight.size(1) * groups, op, ": input has ", input.size(1),
              " channels, but weight ", weight.sizes(), " with groups ", groups, " needs ", weight.size(1) * groups);
  TORCH_CHECK(weight.size(0) % groups == 0, op, ": ", weight.size(0), " output channels do not divide into ", groups,
              " groups");
}

ConvProblem conv_problem(int64_t axes, const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                         const Geometry& geometry, int64_t groups) {
  const std::string op = "conv" + std::to_string(axes) + "d";
  check_geometry(op, axes, input, weight, geometry, groups);
  check_operands(op, input, weight, bias, weight.size(0));

  ConvProblem problem{input.size(0), input.size(1), weight.size(0), groups, kFlatAxis, kFlatAxis, kFlatAxis};
  Axis* const last_axes[] = {&problem.width, &problem.height, &problem.depth};
  for (int64_t i = 0; i < axes; ++i) {  // from the last
    const int64_t axis = axes - 1 - i;
    *last_axes[i] =
        make_axis(op, kAxisNames[kAxisNames.size() - 1 - i], input.size(2 + axis), weight.size(2 + axis),
                  geometry.stride[axis], geometry.padding[2 * i], geometry.padding[2 * i + 1], geometry.dilation[axis]);
  }
  return problem;
}

LinearProblem linear_problem(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias) {
  TORCH_CHECK(weight.dim() == 2, "linear: weight must be [out_features, in_features], got shape ", weight.sizes());
  TORCH_CHECK(input.dim() >= 1, "linear: input must have at least one dimension, got a scalar");
  TORCH_CHECK(input.size(-1) == weight.size(1), "linear: input's last dimension is ", input.size(-1),
              ", but weight needs ", weight.size(1));
  TORCH_CHECK(weight.numel() > 0, "linear: weight has a zero-sized dimension: ", weight.sizes());
  check_operands("linear", input, weight, bias, weight.size(0));
  return {input.numel() / weight.size(1), weight.size(1), weight.size(0), 1, Triangle::none};
}

Triangle triangle_named(const std::optional<std::string>& name) {
  if (!name) return Triangle::none;
  if (*name == "output") return Triangle::output;
  if (*name == "input") return Triangle::input;
  TORCH_CHECK_VALUE(*name == "upper_input", "matmul: triangle is \"output\", \"input\" or \"upper_input\", not \"",
                    *name, "\"");
  return Triangle::upper_input;
}

// A linear layer whose weight is the other factor, transposed.
LinearProblem matmul_problem(const at::Tensor& input, const at::Tensor& weight,
                             const std::optional<std::string>& triangle, bool count_zero) {
  TORCH_CHECK(
      input.dim() == 3 && weight.dim() == 3 && input.size(0) == weight.size(0) && input.size(2) == weight.size(1),
      "matmul: shapes ", input.sizes(), " and ", weight.sizes(), " do not fit together");
  TORCH_CHECK(weight.size(1) > 0 && weight.size(2) > 0, "matmul: weight has a zero-sized dimension: ", weight.sizes());
  check_operands("matmul", input, weight, std::nullopt, 0);
  TORCH_CHECK(!(triangle && count_zero), "matmul: zeros are counted of all products, not of a triangle's");
  return {input.size(1), input.size(2), weight.size(2), input.size(0), triangle_named(triangle)};
}

// torch keeps a channels_last input's layout in the output; so does a counted layer.
at::Tensor with_layout_of(const at::Tensor& output, const at::Tensor& input, const at::Tensor& weight) {
  const auto layout = output.dim() == 5 ? at::MemoryFormat::ChannelsLast3d : at::MemoryFormat::ChannelsLast;
  const bool channels_last = input.suggest_memory_format() == layout || weight.suggest_memory_format() == layout;
  return output.contiguous(channels_last ? layout : at::MemoryFormat::Contiguous);
}

ConvProblem matmul_as_convolution(const LinearProblem& problem) {
  ConvProblem convolution{
      1,        problem.batch * problem.in_features, problem.batch * problem.rows, problem.batch, kFlatAxis, kFlatAxis,
      kFlatAxis};
  convolution.width.in_size = convolution.width.out_size = problem.out_features;
  return convolution;
}

// An empty record, and behind it so many tickets of 32 bits: one operation makes all of them 0.
at::Tensor empty_records(const at::Tensor& input, int64_t tickets) {
  const auto options = input.options().dtype(at::kLong).memory_format(std::nullopt);
  return at::zeros({kCounterFields + (tickets + 1) / 2}, options);
}

std::vector<int64_t> output_shape(const ConvProblem& problem, const at::Tensor& input) {
  std::vector<int64_t> shape = {problem.batch, problem.out_channels};
  if (input.dim() == 5) shape.push_back(problem.depth.out_size);
  shape.insert(shape.end(), {problem.height.out_size, problem.width.out_size});
  return shape;
}

// Of a linear layer or of a batch of matrix products.
std::vector<int64_t> output_shape(const LinearProblem& problem, const at::Tensor& input) {
  std::vector<int64_t> shape = input.sizes().vec();
  shape.back() = problem.out_features;
  return shape;
}

// A call of `to` that does nothing is a part of a small layer's time.
at::Tensor cast(const at::Tensor& tensor, at::ScalarType type) {
  return tensor.scalar_type() == type ? tensor : tensor.to(type);
}

// The tensors of one launch: dense, on one device, and alive as long as this is.
struct Operands {
  at::Tensor input, weight;
  OptionalTensor bias;
  at::Tensor output;  // as the kernel writes it
  at::Tensor result;  // the same, with the operator's dimensions
  at::Tensor records;
  at::Tensor counters;  // the first of those
  at::Tensor sums;      // bytes

  // input, weight: as the kernel takes them.
  Operands(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias, at::IntArrayRef output_shape,
           const cuda::WorkspaceSize& workspace = {})
      : input(input),
        weight(weight),
        bias(bias ? OptionalTensor(cast(*bias, input.scalar_type()).contiguous()) : std::nullopt),
        output(at::empty(output_shape, input.options().memory_format(std::nullopt))),
        result(output),
        records(empty_records(input, workspace.tickets)),
        counters(workspace.tickets ? records.narrow(0, 0, kCounterFields) : records) {
    if (workspace.sum_bytes) {
      sums = at::empty({workspace.sum_bytes}, input.options().dtype(at::kByte).memory_format(std::nullopt));
    }
  }

  Counters& record() const { return *reinterpret_cast<Counters*>(counters.mutable_data_ptr<int64_t>()); }

  template <class Scalar, class Weight = Scalar>
  cpu::Operands<Scalar, Weight> pointers(cpu::KeptWeight* kept = nullptr) const {
    return {input.const_data_ptr<Scalar>(), static_cast<const Weight*>(weight.const_data_ptr()),
            bias ? bias->const_data_ptr<Scalar>() : nullptr, output.mutable_data_ptr<Scalar>(), kept};
  }

  cuda::Tensors device_pointers(cuda::DataType type) const {
    return {type,
            input.const_data_ptr(),
            weight.const_data_ptr(),
            bias ? bias->const_data_ptr() : nullptr,
            output.mutable_data_ptr(),
            &record(),
            sums.defined() ? sums.mutable_data_ptr() : nullptr,
            sums.defined() ? reinterpret_cast<uint32_t*>(&record() + 1) : nullptr};
  }

  // What a split kernel writes besides.
  std::vector<at::Tensor> workspace() const {
    if (!sums.defined()) return {};
    return {sums, records.narrow(0, kCounterFields, records.size(0) - kCounterFields)};
  }
};

// What the operands may be multiplied as; check_operands has let no other pass.
cuda::DataType device_type(const at::Tensor& tensor, bool allow_tf32) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return cuda::DataType::float64;
    case at::kHalf:
      return cuda::DataType::float16;
    case at::kBFloat16:
      return cuda::DataType::bfloat16;
    default:
      return allow_tf32 ? cuda::DataType::tf32 : cuda::DataType::float32;
  }
}

at::ScalarType scalar_type(cuda::DataType type) {
  switch (type) {
    case cuda::DataType::float64:
      return at::kDouble;
    case cuda::DataType::float16:
      return at::kHalf;
    case cuda::DataType::bfloat16:
      return at::kBFloat16;
    default:
      return at::kFloat;
  }
}

// Row-major as the problem says, of a type that kernels compute in.
template <class Problem>
Operands dense_operands(const Problem& problem, const at::Tensor& input, const at::Tensor& weight,
                        const OptionalTensor& bias, at::ScalarType type, const cuda::WorkspaceSize& workspace = {}) {
  return {cast(input, type).contiguous(), cast(weight, type).contiguous(), bias, output_shape(problem, input),
          workspace};
}

Operands tensor_core_operands(const LinearProblem& problem, const at::Tensor& input, const at::Tensor& weight,
                              const OptionalTensor& bias, const cuda::Choice& choice,
                              const cuda::WorkspaceSize& workspace) {
  return {with_stored_rows(input, *choice.kernel), with_stored_rows(weight, *choice.kernel), bias,
          output_shape(problem, input), workspace};
}

// Channels-last; plan.h says how they lie. Nothing is copied of what is so already.
Operands tensor_core_operands(const ConvProblem& problem, const at::Tensor& input, const at::Tensor& weight,
                              const OptionalTensor& bias, const cuda::Choice& choice,
                              const cuda::WorkspaceSize& workspace) {
  const at::Tensor by_group = input.unflatten(1, {problem.groups, problem.in_channels / problem.groups});
  std::vector<int64_t> shape = output_shape(problem, input);
  std::rotate(shape.begin() + 1, shape.begin() + 2, shape.end());
  Operands operands(stored_images(by_group, problem, choice), stored_weight(weight, problem, choice), bias, shape,
                    workspace);
  operands.result = operands.output.movedim(-1, 1);
  return operands;
}

// As a CUDA kernel takes them.
template <class Problem>
Operands operands_for(const cuda::Choice& choice, const Problem& problem, const at::Tensor& input,
                      const at::Tensor& weight, const OptionalTensor& bias) {
  const cuda::KernelInfo& kernel = *choice.kernel;
  const cuda::WorkspaceSize workspace = cuda::workspace_of(problem, choice);
  return cuda::is_for_tensor_cores(kernel)
             ? tensor_core_operands(problem, input, weight, bias, choice, workspace)
             : dense_operands(problem, input, weight, bias, scalar_type(kernel.type), workspace);
}

// The devices: each computes either problem in operands of its own, and says in `last` what it launched.
struct Cpu {
  template <class Problem>
  static Operands run(const char* op, const Problem& problem, const at::Tensor& input, const at::Tensor& weight,
                      const OptionalTensor& bias, const Options& options) {
    const at::ScalarType type = input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const Operands operands(cast(input, type).contiguous(),
                            cast(weight, weight_type(problem, weight, type)).contiguous(), bias,
                            output_shape(problem, input));
    if (operands.output.numel() == 0) return operands;
    const bool is_kept = options.keeps_weight && !options.count_zero && cpu::is_worth_keeping(problem);
    const std::shared_ptr<cpu::KeptWeight> kept = is_kept ? kept_weight(weight) : nullptr;
    if (type == at::kDouble) {
      run_in<double>(problem, operands, kept.get(), options.count_zero);
    } else {
      run_in<float>(problem, operands, kept.get(), options.count_zero);
    }
    last = {std::string(op) + (type == at::kDouble ? "_f64_" : "_f32_") + cpu::isa_name(cpu::selected_isa())};
    return operands;
  }

 private:
  // What the kernels take the weight in: as it is, where they widen it themselves.
  static at::ScalarType weight_type(const ConvProblem&, const at::Tensor&, at::ScalarType type) { return type; }
  static at::ScalarType weight_type(const LinearProblem& problem, const at::Tensor& weight, at::ScalarType type) {
    return problem.triangle == Triangle::none && cpu::has_few_rows(problem) ? weight.scalar_type() : type;
  }

  template <class Scalar>
  static void run_in(const ConvProblem& problem, const Operands& operands, cpu::KeptWeight* kept, bool count_zero) {
    cpu::conv(problem, operands.pointers<Scalar>(kept), count_zero, operands.record());
  }
  // Columns that lie along the depth suit triangles only.
  template <class Scalar>
  static void run_in(const LinearProblem& problem, const Operands& operands, cpu::KeptWeight* kept, bool count_zero) {
    if (problem.triangle != Triangle::none)
      return cpu::triangular(problem, operands.pointers<Scalar>(), operands.record());
    switch (operands.weight.scalar_type()) {
      case at::kBFloat16:
        return cpu::linear_of_few_rows(problem, operands.pointers<float, cpu::BFloat16>(), count_zero,
                                       operands.record());
      case at::kHalf:
        return cpu::linear_of_few_rows(problem, operands.pointers<float, cpu::Float16>(), count_zero,
                                       operands.record());
      default:
        return cpu::linear(problem, operands.pointers<Scalar>(kept), count_zero, operands.record());
    }
  }
};

#ifdef FLOPCUDA_WITH_CUDA
struct Cuda {
  template <class Problem>
  static Operands run(const char*, const Problem& problem, const at::Tensor& input, const at::Tensor& weight,
                      const OptionalTensor& bias, const Options& options) {
    const c10::cuda::CUDAGuard guard(input.device());
    const cuda::DeviceProperties& device = cuda::device_properties();
    const cuda::Choice choice =
        cuda::choose_kernel(problem, device_type(input, options.allow_tf32), options.count_zero, device);
    const Operands operands = operands_for(choice, problem, input, weight, bias);
    if (operands.output.numel() == 0) return operands;
    const cuda::LaunchPlan plan = cuda::plan(problem, operands.device_pointers(choice.kernel->type), choice);
    cuda::launch(plan, c10::cuda::getCurrentCUDAStream(input.device().index()).stream());
    last = {plan.kernel, choice.splits, cuda::wave_efficiency(int64_t{plan.grid.x} * choice.splits, device)};
    return operands;
  }
};
#endif

template <class Device, class Problem>
Operands run(const char* op, const Problem& problem, const at::Tensor& input, const at::Tensor& weight,
             const OptionalTensor& bias, const Options& options) {
  last = {};
  return Device::run(op, problem, input, weight, bias, options);
}

// The kernels take rows that run along the reduction: of the second factor, its transpose.
template <class Device>
Operands run_matmul(const LinearProblem& problem, const at::Tensor& input, const at::Tensor& weight,
                    const Options& options) {
  return run<Device>("matmul", problem, input, weight.transpose(1, 2), std::nullopt, options);
}

// On the CPU, a pointwise convolution packs the columns as they are: a group for each product, a pixel for each column.
template <>
Operands run_matmul<Cpu>(const LinearProblem& problem, const at::Tensor& input, const at::Tensor& weight,
                         const Options& options) {
  if (problem.triangle != Triangle::none) {
    return run<Cpu>("matmul", problem, input, weight.transpose(1, 2), std::nullopt, options);
  }
  const ConvProblem convolution = matmul_as_convolution(problem);
  const at::Tensor images = weight.reshape({1, convolution.in_channels, 1, problem.out_features});
  const at::Tensor filters = input.reshape({convolution.out_channels, problem.in_features, 1, 1});
  Operands operands = run<Cpu>("conv2d", convolution, images, filters, std::nullopt, options);
  operands.result = operands.result.view({problem.batch, problem.rows, problem.out_features});
  return operands;
}

template <class Device, int axes>
Result conv(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias, at::IntArrayRef stride,
            at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups, bool count_zero, bool allow_tf32) {
  const auto problem = conv_problem(axes, input, weight, bias, {stride, padding, dilation}, groups);
  const char* const op = axes == 3 ? "conv3d" : "conv2d";
  const Operands operands = run<Device>(op, problem, input, weight, bias, {count_zero, allow_tf32, true});
  return {with_layout_of(cast(operands.result, input.scalar_type()), input, weight), operands.counters};
}

template <class Device>
Result linear(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias, bool count_zero,
              bool allow_tf32) {
  const auto problem = linear_problem(input, weight, bias);
  const Operands operands = run<Device>("linear", problem, input, weight, bias, {count_zero, allow_tf32, true});
  return {cast(operands.result, input.scalar_type()), operands.counters};
}

template <class Device>
Result matmul(const at::Tensor& input, const at::Tensor& weight, const std::optional<std::string>& triangle,
              bool count_zero, bool allow_tf32) {
  const auto problem = matmul_problem(input, weight, triangle, count_zero);
  const Options options{count_zero, allow_tf32};
  const Operands operands = run_matmul<Device>(problem, input, weight, options);
  return {cast(operands.result, input.scalar_type()), operands.counters};
}

// What a CUDA device would be told to do, over tensors on the CPU: for the PTX virtual machine. Output, with the
// operator's dimensions, and counters, which the launch is to fill; what else its parameters point to, to be read, and
// to be written; kernel, grid, block, bytes of dynamic shared memory; and the parameters, uint8.
using PlannedResult = std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>, std::vector<at::Tensor>, std::string,
                                 std::vector<int64_t>, std::vector<int64_t>, int64_t, at::Tensor>;

const cuda::KernelInfo& kernel_named(const std::string& name) {
  for (const cuda::KernelInfo& kernel : cuda::kernels()) {
    if (name == kernel.name) return kernel;
  }
  TORCH_CHECK(false, "flopcuda has no CUDA kernel named ", name);
}

// Whether operands of the input's type can be had as a kernel takes them, without loss but for that of TF32.
bool kernel_takes(const cuda::KernelInfo& kernel, const at::Tensor& input) {
  return cuda::can_take(kernel.type, device_type(input, kernel.type == cuda::DataType::tf32));
}

std::vector<int64_t> extents(const cuda::Dim3& dim) { return {dim.x, dim.y, dim.z}; }

at::Tensor bytes_of(const std::vector<std::byte>& bytes) {
  const at::Tensor tensor = at::empty({static_cast<int64_t>(bytes.size())}, at::kByte);
  std::copy_n(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), tensor.mutable_data_ptr<uint8_t>());
  return tensor;
}

// What a caller asks for: a kernel by name, if any, and how it is to compute the problem. The rest is chosen.
struct Wish {
  const std::optional<std::string>& kernel;
  std::optional<int64_t> splits;
  std::optional<bool> gathers_width;

  template <class Problem>
  cuda::Choice choose(const Problem& problem, const at::Tensor& input, const Options& options,
                      const cuda::DeviceProperties& device) const {
    TORCH_CHECK_VALUE(kernel || !(splits || gathers_width), "a launch is as one kernel can make it, but none is named");
    if (!kernel) {
      return cuda::choose_kernel(problem, device_type(input, options.allow_tf32), options.count_zero, device);
    }
    const cuda::KernelInfo& named = kernel_named(*kernel);
    cuda::Choice choice = splits && gathers_width ? cuda::Choice{&named} : cuda::choose_way(problem, named, device);
    if (splits) choice.splits = static_cast<int32_t>(std::clamp<int64_t>(*splits, 0, INT32_MAX));
    if (gathers_width) choice.gathers_width = *gathers_width;
    return choice;
  }
};

template <class Problem>
PlannedResult plan_over(const Problem& problem, const at::Tensor& input, const at::Tensor& weight,
                        const OptionalTensor& bias, const Options& options, const Wish& wish) {
  TORCH_CHECK(input.is_cpu(), "the PTX virtual machine takes tensors on the CPU, but input is on ", input.device());
  const cuda::Choice choice = wish.choose(problem, input, options, {});
  const cuda::KernelInfo& kernel = *choice.kernel;
  TORCH_CHECK_VALUE(kernel_takes(kernel, input), kernel.name, " is a kernel of another type than the tensors");
  const Operands operands = operands_for(choice, problem, input, weight, bias);
  const cuda::LaunchPlan launch = cuda::plan(problem, operands.device_pointers(kernel.type), choice);
  std::vector<at::Tensor> others = {operands.input, operands.weight};
  if (operands.bias) others.push_back(*operands.bias);
  return {operands.result,       operands.counters,   others,
          operands.workspace(),  launch.kernel,       extents(launch.grid),
          extents(launch.block), launch.shared_bytes, bytes_of(launch.parameters)};
}

template <int axes>
PlannedResult conv_plan(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                        at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups,
                        bool count_zero, bool allow_tf32, const std::optional<std::string>& kernel,
                        std::optional<int64_t> splits, std::optional<bool> gathers_width) {
  const auto problem = conv_problem(axes, input, weight, bias, {stride, padding, dilation}, groups);
  return plan_over(problem, input, weight, bias, {count_zero, allow_tf32}, {kernel, splits, gathers_width});
}

PlannedResult linear_plan(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                          bool count_zero, bool allow_tf32, const std::optional<std::string>& kernel,
                          std::optional<int64_t> splits, std::optional<bool> gathers_width) {
  const auto problem = linear_problem(input, weight, bias);
  return plan_over(problem, input, weight, bias, {count_zero, allow_tf32}, {kernel, splits, gathers_width});
}

PlannedResult matmul_plan(const at::Tensor& input, const at::Tensor& weight, const std::optional<std::string>& triangle,
                          bool count_zero, bool allow_tf32, const std::optional<std::string>& kernel,
                          std::optional<int64_t> splits, std::optional<bool> gathers_width) {
  const auto problem = matmul_problem(input, weight, triangle, count_zero);
  return plan_over(problem, input, weight.transpose(1, 2), std::nullopt, {count_zero, allow_tf32},
                   {kernel, splits, gathers_width});
}

// A CUDA device by what its maker says of it, for a launch that nobody makes.
struct DescribedDevice {
  int64_t multiprocessors;
  at::ArrayRef<double> rates;
  at::IntArrayRef resident_blocks;
  double memory_bytes, launch_cycles;

  cuda::DeviceProperties properties() const {
    TORCH_CHECK_VALUE(0 < multiprocessors && multiprocessors <= INT32_MAX && rates.size() == cuda::UNITS,
                      "a device has 1 to ", INT32_MAX, " multiprocessors and ", cuda::UNITS, " rates, not ",
                      multiprocessors, " and ", rates.size());
    TORCH_CHECK_VALUE(memory_bytes > 0, "a device's memory moves some bytes in a cycle, not ", memory_bytes);
    TORCH_CHECK_VALUE(launch_cycles >= 0, "a launch takes some cycles or none, not ", launch_cycles);
    cuda::DeviceProperties device{static_cast<int32_t>(multiprocessors), {}, memory_bytes, launch_cycles, {}};
    std::copy(rates.begin(), rates.end(), device.rates.begin());
    device.resident_blocks.assign(resident_blocks.begin(), resident_blocks.end());
    return device;
  }
};

// A kernel's name, the parts of its reduction, its blocks, their wave efficiency, the segments of the reduction, and
// the numbers of the stored input and of the padded one, and whether the width's taps are channels.
using Choice = std::tuple<std::string, int64_t, int64_t, double, int64_t, int64_t, int64_t, bool>;

template <class Problem>
Choice choose_on(const cuda::DeviceProperties& device, const Problem& problem, const at::Tensor& input,
                 const Options& options, const Wish& wish) {
  const cuda::Choice choice = wish.choose(problem, input, options, device);
  const cuda::Waves waves = cuda::count_waves(problem, choice, device);
  return {choice.kernel->name,
          choice.splits,
          waves.blocks,
          waves.efficiency,
          cuda::count_segments(choice, problem),
          cuda::count_stored_inputs(choice, problem),
          cuda::count_padded_inputs(choice, problem),
          choice.gathers_width};
}

template <int axes>
Choice conv_choice(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                   at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups,
                   bool count_zero, bool allow_tf32, int64_t multiprocessors, at::ArrayRef<double> rates,
                   at::IntArrayRef resident_blocks, double memory_bytes, double launch_cycles,
                   const std::optional<std::string>& kernel, std::optional<int64_t> splits,
                   std::optional<bool> gathers_width) {
  const auto problem = conv_problem(axes, input, weight, bias, {stride, padding, dilation}, groups);
  const DescribedDevice device{multiprocessors, rates, resident_blocks, memory_bytes, launch_cycles};
  return choose_on(device.properties(), problem, input, {count_zero, allow_tf32}, {kernel, splits, gathers_width});
}

Choice linear_choice(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias, bool count_zero,
                     bool allow_tf32, int64_t multiprocessors, at::ArrayRef<double> rates,
                     at::IntArrayRef resident_blocks, double memory_bytes, double launch_cycles,
                     const std::optional<std::string>& kernel, std::optional<int64_t> splits,
                     std::optional<bool> gathers_width) {
  const auto problem = linear_problem(input, weight, bias);
  const DescribedDevice device{multiprocessors, rates, resident_blocks, memory_bytes, launch_cycles};
  return choose_on(device.properties(), problem, input, {count_zero, allow_tf32}, {kernel, splits, gathers_width});
}

Choice matmul_choice(const at::Tensor& input, const at::Tensor& weight, const std::optional<std::string>& triangle,
                     bool count_zero, bool allow_tf32, int64_t multiprocessors, at::ArrayRef<double> rates,
                     at::IntArrayRef resident_blocks, double memory_bytes, double launch_cycles,
                     const std::optional<std::string>& kernel, std::optional<int64_t> splits,
                     std::optional<bool> gathers_width) {
  const auto problem = matmul_problem(input, weight, triangle, count_zero);
  const DescribedDevice device{multiprocessors, rates, resident_blocks, memory_bytes, launch_cycles};
  return choose_on(device.properties(), problem, input, {count_zero, allow_tf32}, {kernel, splits, gathers_width});
}

// Schemas: an operator; the kernel that it launches on a device that is described (device.h); the launch that it would
// make on a CUDA device.
constexpr const char* kRecord = " -> (Tensor output, Tensor counters)";
constexpr const char* kChoice =
    ", *, int multiprocessors, float[] rates, int[] resident_blocks, float memory_bytes, float launch_cycles, "
    "str? kernel=None, int? splits=None, bool? gathers_width=None) -> (str kernel, int splits, int blocks, "
    "float wave_efficiency, int segments, int stored_inputs, int padded_inputs, bool gathers_width)";
constexpr const char* kPlan =
    ", str? kernel=None, int? splits=None, bool? gathers_width=None) -> (Tensor output, Tensor counters, Tensor[] "
    "operands, Tensor[] workspace, str kernel, int[] grid, int[] block, int shared_bytes, Tensor parameters)";

template <int axes>
void define_conv(torch::Library& library) {
  const std::string name = "conv" + std::to_string(axes) + "d";
  const std::string lists = std::to_string(axes) + "] stride, SymInt[" + std::to_string(2 * axes) +
                            "] padding, SymInt[" + std::to_string(axes) + "] dilation, SymInt groups";
  const std::string arguments =
      "(Tensor input, Tensor weight, Tensor? bias, SymInt[" + lists + ", bool count_zero=False, bool allow_tf32=False";
  library.def((name + arguments + ")" + kRecord).c_str());
  library.def((name + "_choice" + arguments + kChoice).c_str(), conv_choice<axes>);
  library.def((name + "_plan" + arguments + kPlan).c_str(), conv_plan<axes>);
}

void define_linear(torch::Library& library) {
  const std::string arguments =
      "(Tensor input, Tensor weight, Tensor? bias, bool count_zero=False, bool allow_tf32=False";
  library.def(("linear" + arguments + ")" + kRecord).c_str());
  library.def(("linear_choice" + arguments + kChoice).c_str(), linear_choice);
  library.def(("linear_plan" + arguments + kPlan).c_str(), linear_plan);
}

void define_matmul(torch::Library& library) {
  const std::string arguments =
      "(Tensor input, Tensor weight, str? triangle=None, bool count_zero=False, bool allow_tf32=False";
  library.def(("matmul" + arguments + ")" + kRecord).c_str());
  library.def(("matmul_choice" + arguments + kChoice).c_str(), matmul_choice);
  library.def(("matmul_plan" + arguments + kPlan).c_str(), matmul_plan);
}

template <class Device>
void implement(torch::Library& library) {
  library.impl("conv2d", conv<Device, 2>);
  library.impl("conv3d", conv<Device, 3>);
  library.impl("linear", linear<Device>);
  library.impl("matmul", matmul<Device>);
}

}  // namespace

const Launched& last_launch() { return last; }

TORCH_LIBRARY(flopcuda, library) {
  define_conv<2>(library);
  define_conv<3>(library);
  define_linear(library);
  define_matmul(library);
}

TORCH_LIBRARY_IMPL(flopcuda, CPU, library) { implement<Cpu>(library); }

#ifdef FLOPCUDA_WITH_CUDA
TORCH_LIBRARY_IMPL(flopcuda, CUDA, library) { implement<Cuda>(library); }
#endif

}  // namespace flopcuda
