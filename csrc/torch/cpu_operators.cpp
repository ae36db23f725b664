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
  static Operands run(const char* op, const Problem& problem, const at::Tensor& input, const at::Tensor& weight,
                      const OptionalTensor& bias, const Options& options) {
    if (is_of_pairs(problem, input, options)) return run_pairs(op, problem, input, weight, bias, options);
    const at::ScalarType type = input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const Operands operands(dense(cast(input, type)),
                            stored_weight(problem, cast(weight, weight_type(problem, weight, type))), bias,
                            output_shape(problem, input));
    if (operands.output.numel() == 0) return operands;
    const std::shared_ptr<cpu::KeptWeight> kept = kept_for(problem, weight, operands, options);
    if (type == at::kDouble) {
      run_in<double>(problem, operands, kept.get(), options.count_zero);
    } else {
      run_in<float>(problem, operands, kept.get(), options.count_zero);
    }
    note_launch(op, type == at::kDouble ? "f64" : "f32");
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
  // What is kept of the operator's weight, if anything is, for a kernel that takes these operands.
  template <class Problem>
  static std::shared_ptr<cpu::KeptWeight> kept_for(const Problem& problem, const at::Tensor& weight,
                                                   const Operands& operands, const Options& options) {
    const bool is_kept = options.keeps_weight && !options.count_zero && operands.weight.is_contiguous() &&
                         cpu::is_worth_keeping(problem);
    return is_kept ? kept_weight(weight) : nullptr;
  }

  static void note_launch(const char* op, const char* type) {
    last_launch() = {std::string(op) + "_" + type + "_" + cpu::isa_name(cpu::selected_isa())};
  }

  // Whether a CPU that multiplies bfloat16 does so; zeros are looked for in numbers of their own.
  template <class Problem>
  static bool is_of_pairs(const Problem& problem, const at::Tensor& input, const Options& options) {
    return input.scalar_type() == at::kBFloat16 && !options.count_zero && has_pairs(problem) && cpu::multiplies_pairs();
  }
  static bool has_pairs(const ConvProblem& problem) {
    return problem.groups > 0 && problem.in_channels / problem.groups % 2 == 0;
  }
  static bool has_pairs(const LinearProblem& problem) {
    return problem.in_features % 2 == 0 && problem.triangle == Triangle::none && !cpu::has_few_rows(problem);
  }

  template <class Problem>
  static Operands run_pairs(const char* op, const Problem& problem, const at::Tensor& input, const at::Tensor& weight,
                            const OptionalTensor& bias, const Options& options) {
    const Operands operands(paired(problem, input), paired(problem, weight), bias, output_shape(problem, input));
    const std::shared_ptr<cpu::KeptWeight> kept = kept_for(problem, weight, operands, options);
    multiply_pairs(problem, operands.pointers<float>(kept.get()), operands.record());
    note_launch(op, "bf16");
    return operands;
  }
  static at::Tensor paired(const ConvProblem&, const at::Tensor& tensor) { return paired_channels(tensor); }
  static at::Tensor paired(const LinearProblem&, const at::Tensor& tensor) { return paired_features(tensor); }
  static void multiply_pairs(ConvProblem problem, const cpu::Operands<float>& operands, Counters& counters) {
    problem.in_channels /= 2;
    cpu::conv_of_pairs(problem, operands, counters);
  }
  static void multiply_pairs(LinearProblem problem, const cpu::Operands<float>& operands, Counters& counters) {
    problem.in_features /= 2;
    cpu::linear_of_pairs(problem, operands, counters);
  }

  // What the kernels take the weight in: as it is, where they widen it themselves.
  static at::ScalarType weight_type(const ConvProblem&, const at::Tensor&, at::ScalarType type) { return type; }
  static at::ScalarType weight_type(const LinearProblem& problem, const at::Tensor& weight, at::ScalarType type) {
    return problem.triangle == Triangle::none && cpu::has_few_rows(problem) ? weight.scalar_type() : type;
  }

  // As the kernels take it.
  static at::Tensor stored_weight(const LinearProblem&, const at::Tensor& weight) { return weight.contiguous(); }
  static at::Tensor stored_weight(const ConvProblem& problem, const at::Tensor& weight) {
    const bool taps_are_dense = !weight.is_contiguous() && cpu::takes_weight_strides(problem) && !weight.is_neg() &&
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
