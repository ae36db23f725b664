// See operands.h.
#include "torch/operands.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

namespace flopcuda {
namespace {

static_assert(sizeof(Counters) == 5 * sizeof(int64_t), "the record is read as five int64");
constexpr int64_t kCounterFields = 5;

// An empty record, and behind it so many tickets of 32 bits: one operation makes all of them 0.
at::Tensor empty_records(const at::Tensor& input, int64_t tickets) {
  const auto options = input.options().dtype(at::kLong).memory_format(std::nullopt);
  return at::zeros({kCounterFields + (tickets + 1) / 2}, options);
}

// From the last tap to the first one.
std::vector<int64_t> flipped_taps(const at::Tensor& weight) {
  std::vector<int64_t> taps = {0};
  for (int64_t axis = 2; axis < weight.dim(); ++axis) {
    std::vector<int64_t> rows;
    rows.swap(taps);
    for (int64_t row : rows) {
      for (int64_t i = weight.size(axis) - 1; i >= 0; --i) taps.push_back(row + i * weight.stride(axis));
    }
  }
  return taps;
}

}  // namespace

std::vector<int64_t> output_shape(const ConvProblem& problem, const at::Tensor& input) {
  std::vector<int64_t> shape = {problem.batch, problem.out_channels};
  if (input.dim() == 5) shape.push_back(problem.depth.out_size);
  shape.insert(shape.end(), {problem.height.out_size, problem.width.out_size});
  return shape;
}

std::vector<int64_t> output_shape(const LinearProblem& problem, const at::Tensor& input) {
  std::vector<int64_t> shape = input.sizes().vec();
  shape.back() = problem.out_features;
  return shape;
}

Operands::Operands(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                   at::IntArrayRef output_shape, const cuda::WorkspaceSize& workspace)
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

std::optional<cpu::WeightLayout> Operands::weight_layout() const {
  if (weight.is_contiguous() && !flips_taps) return std::nullopt;
  return cpu::WeightLayout{weight.stride(0), weight.stride(1),
                           flips_taps ? flipped_taps(weight) : std::vector<int64_t>()};
}

cuda::Tensors Operands::device_pointers(cuda::DataType type) const {
  return {type,
          input.const_data_ptr(),
          weight.const_data_ptr(),
          bias ? bias->const_data_ptr() : nullptr,
          output.mutable_data_ptr(),
          &record(),
          sums.defined() ? sums.mutable_data_ptr() : nullptr,
          sums.defined() ? reinterpret_cast<uint32_t*>(&record() + 1) : nullptr};
}

std::vector<at::Tensor> Operands::workspace() const {
  if (!sums.defined()) return {};
  return {sums, records.narrow(0, kCounterFields, records.size(0) - kCounterFields)};
}

}  // namespace flopcuda
