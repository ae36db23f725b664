// The operators' twins that launch nothing: an operator's `_plan` gives the launch that it would make on a CUDA device,
// and `_choice` the kernel that it would launch on a device that is described (device.h).
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <string>

#include "cuda/choice.h"
#include "cuda/plan.h"
#include "cuda/tap_channels.h"
#include "torch/cuda_operands.h"
#include "torch/operators.h"
#include "torch/schemas.h"

namespace flopcuda {
namespace {

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

constexpr const char* kChoice =
    ", *, int multiprocessors, float[] rates, int[] resident_blocks, float memory_bytes, float launch_cycles, "
    "str? kernel=None, int? splits=None, bool? gathers_width=None) -> (str kernel, int splits, int blocks, "
    "float wave_efficiency, int segments, int stored_inputs, int padded_inputs, bool gathers_width)";
constexpr const char* kPlan =
    ", str? kernel=None, int? splits=None, bool? gathers_width=None) -> (Tensor output, Tensor counters, Tensor[] "
    "operands, Tensor[] workspace, str kernel, int[] grid, int[] block, int shared_bytes, Tensor parameters)";

template <int axes>
void define_conv(torch::Library& library) {
  const std::string name = "conv" + std::to_string(axes) + "d", arguments = conv_arguments(axes);
  library.def((name + "_choice" + arguments + kChoice).c_str(), conv_choice<axes>);
  library.def((name + "_plan" + arguments + kPlan).c_str(), conv_plan<axes>);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(flopcuda, library) {
  define_conv<2>(library);
  define_conv<3>(library);
  library.def((std::string("linear_choice") + LINEAR_ARGUMENTS + kChoice).c_str(), linear_choice);
  library.def((std::string("linear_plan") + LINEAR_ARGUMENTS + kPlan).c_str(), linear_plan);
  library.def((std::string("matmul_choice") + MATMUL_ARGUMENTS + kChoice).c_str(), matmul_choice);
  library.def((std::string("matmul_plan") + MATMUL_ARGUMENTS + kPlan).c_str(), matmul_plan);
}

}  // namespace flopcuda
