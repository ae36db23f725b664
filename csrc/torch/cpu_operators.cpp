// The counted operators on the CPU.
#include <memory>

#include "cpu/kernels.h"
#include "torch/dense.h"
#include "torch/kept_weights.h"
#include "torch/operators.h"
#include "torch/pairs.h"

namespace flopcuda {
namespace {

ConvProblem matmul_as_convolution(const LinearProblem& problem) {
  ConvProblem convolution{
      1,        problem.batch * problem.in_features, problem.batch * problem.rows, problem.batch, kFlatAxis, kFlatAxis,
      kFlatAxis};
  convolution.width.in_size = convolution.width.out_size = problem.out_features;
  return convolution;
}

struct Cpu {
  template <class Problem>
  static Operands run(const char* op, const Problem& problem, const at::Tensor& input,
                      const at::Tensor& original_weight, const OptionalTensor& bias, const Options& options) {
    const bool in_pairs = is_of_pairs(problem, input, options);
    const at::ScalarType type = input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const auto shape = output_shape(problem, input);
    const bool flips_taps = options.flips_taps && !in_pairs && takes_tap_layout(problem) && !original_weight.is_neg();
    const at::Tensor weight = options.flips_taps && !flips_taps ? flipped_weight(original_weight) : original_weight;
    Operands operands =
        in_pairs ? Operands(paired_input(problem, input), paired_weight(problem, weight), bias, shape)
                 : Operands(dense(cast(input, type)),
                            stored_weight(problem, cast(weight, weight_type(problem, weight, type)), flips_taps), bias,
                            shape);
    operands.flips_taps = flips_taps;
    if (operands.output.numel() == 0) return operands;
    const bool is_kept = options.keeps_weight && !options.count_zero && !options.flips_taps &&
                         operands.weight.is_contiguous() && cpu::is_worth_keeping(problem);
    const std::shared_ptr<cpu::KeptWeight> kept = is_kept ? kept_weight(weight) : nullptr;
    if (in_pairs) {
      multiply_pairs(problem, operands.pointers<float>(kept.get()), operands.record());
    } else if (type == at::kDouble) {
      run_in<double>(problem, operands, kept.get(), options.count_zero);
    } else {
      run_in<float>(problem, operands, kept.get(), options.count_zero);
    }
    const char* const type_name = in_pairs ? "_bf16_" : type == at::kDouble ? "_f64_" : "_f32_";
    last_launch() = {std::string(op) + type_name + cpu::isa_name(cpu::selected_isa())};
    return operands;
  }

  // On the CPU, a pointwise convolution packs the columns as they are: a group for each product, a pixel for each
  // column.
  static Operands run_matmul(const LinearProblem& problem, const at::Tensor& input, const at::Tensor& weight,
                             const Options& options) {
    if (problem.triangle != Triangle::none) {
      return run("matmul", problem, input, weight.transpose(1, 2), std::nullopt, options);
    }
    const ConvProblem convolution = matmul_as_convolution(problem);
    const at::Tensor images = weight.reshape({1, convolution.in_channels, 1, problem.out_features});
    const at::Tensor filters = input.reshape({convolution.out_channels, problem.in_features, 1, 1});
    Operands operands = run("conv2d", convolution, images, filters, std::nullopt, options);
    operands.result = operands.result.view({problem.batch, problem.rows, problem.out_features});
    return operands;
  }

 private:
  // Whether a CPU that multiplies bfloat16 does so; zeros are looked for in numbers of their own.
  template <class Problem>
  static bool is_of_pairs(const Problem& problem, const at::Tensor& input, const Options& options) {
    return input.scalar_type() == at::kBFloat16 && !options.count_zero && has_pairs(problem) && cpu::multiplies_pairs();
  }
  static bool has_pairs(const ConvProblem& problem) {
    return problem.groups > 0 && problem.in_channels / problem.groups > 1 && !cpu::has_few_outputs(problem);
  }
  static bool has_pairs(const LinearProblem& problem) {
    return problem.in_features > 1 && problem.triangle == Triangle::none && !cpu::has_few_rows(problem);
  }

  // Operands in pairs, and products of them.
  static at::Tensor paired_input(const ConvProblem& problem, const at::Tensor& input) {
    return paired_channels(input, problem.groups);
  }
  static at::Tensor paired_weight(const ConvProblem&, const at::Tensor& weight) { return paired_channels(weight, 1); }
  static at::Tensor paired_input(const LinearProblem&, const at::Tensor& input) { return paired_features(input); }
  static at::Tensor paired_weight(const LinearProblem&, const at::Tensor& weight) { return paired_features(weight); }
  static void multiply_pairs(const ConvProblem& problem, const cpu::Operands<float>& operands, Counters& counters) {
    cpu::conv_of_pairs(problem, operands, counters);
  }
  static void multiply_pairs(const LinearProblem& problem, const cpu::Operands<float>& operands, Counters& counters) {
    cpu::linear_of_pairs(problem, operands, counters);
  }

  // What the kernels take the weight in: as it is, where they widen it themselves.
  static at::ScalarType weight_type(const ConvProblem&, const at::Tensor&, at::ScalarType type) { return type; }
  static at::ScalarType weight_type(const LinearProblem& problem, const at::Tensor& weight, at::ScalarType type) {
    return problem.triangle == Triangle::none && cpu::has_few_rows(problem) ? weight.scalar_type() : type;
  }

  static bool takes_tap_layout(const LinearProblem&) { return false; }
  static bool takes_tap_layout(const ConvProblem& problem) { return cpu::takes_tap_layout(problem); }

  // As the kernels take it; where they flip its taps, they take any.
  static at::Tensor stored_weight(const LinearProblem&, const at::Tensor& weight, bool) { return weight.contiguous(); }
  static at::Tensor stored_weight(const ConvProblem& problem, const at::Tensor& weight, bool flips_taps) {
    if (flips_taps) return weight;
    const bool taps_are_dense = !weight.is_contiguous() && cpu::takes_weight_layout(problem) && !weight.is_neg() &&
                                weight.numel() > 0 && weight.select(0, 0).select(0, 0).is_contiguous();
    return taps_are_dense ? weight : weight.contiguous();
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

}  // namespace

TORCH_LIBRARY_IMPL(flopcuda, CPU, library) { implement<Cpu>(library); }

}  // namespace flopcuda
