// See problems.h.
#include "torch/problems.h"

#include <array>

namespace flopcuda {
namespace {

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

Triangle triangle_named(const std::optional<std::string>& name) {
  if (!name) return Triangle::none;
  if (*name == "output") return Triangle::output;
  if (*name == "input") return Triangle::input;
  TORCH_CHECK_VALUE(*name == "upper_input", "matmul: triangle is \"output\", \"input\" or \"upper_input\", not \"",
                    *name, "\"");
  return Triangle::upper_input;
}

}  // namespace

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

}  // namespace flopcuda
