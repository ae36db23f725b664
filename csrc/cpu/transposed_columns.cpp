// Packs panels of transposed rows.
#include "transposed_columns.h"

#include <algorithm>

#include "copy.h"
#include "gemm.h"
#include "row_panels.h"

namespace flopcuda::cpu {

template <class Scalar>
TransposedColumns<Scalar>::TransposedColumns(const LinearProblem& problem, const Scalar* weight,
                                             const PanelWidth& width, int64_t blocks)
    : problem_(problem), weight_(weight), width_(width), blocks_{panel_count(problem, width), blocks} {}

template <class Scalar>
int64_t TransposedColumns<Scalar>::panel_count(const LinearProblem& problem, const PanelWidth& width) {
  return ceil_div(problem.out_features, width.max);
}

template <class Scalar>
int64_t TransposedColumns<Scalar>::depth_block() const {
  return std::min(max_depth_block(width_), problem_.in_features);
}

template <class Scalar>
BlockLimits TransposedColumns<Scalar>::limits() const {
  const int64_t panels = blocks_.length(0);
  return {panels, panels, panels * width_.max * depth_block()};
}

template <class Scalar>
void TransposedColumns<Scalar>::layout(int64_t block_index, ColumnBlock<Scalar>& block) const noexcept {
  const int64_t max_columns = width_.max;
  for (int64_t i = 0; i < blocks_.length(block_index); ++i) {
    const int64_t column = (blocks_.begin(block_index) + i) * max_columns;
    const int64_t valid_columns = std::min(max_columns, problem_.out_features - column);
    block.add_panel(i * max_columns * depth_block());
    block.add_run({0, 0, 0, column, column, 0, valid_columns});
    block.finish_panel(width_.rounded(valid_columns));
  }
  for (int64_t k = 0; k < depth_block(); ++k) block.value_offsets[k] = k * max_columns;
}

template <class Scalar>
void TransposedColumns<Scalar>::pack(int64_t /*group*/, int64_t first_depth, int64_t depth, bool count_zero,
                                     ColumnBlock<Scalar>& block) const noexcept {
  const int64_t stride = width_.max;
  for (size_t i = 0; i < block.panels.size(); ++i) {
    const ColumnPanel& panel = block.panels[i];
    Scalar* values = block.values.data() + panel.values_offset;
    const Scalar* source = weight_ + block.runs[panel.first_run].x * problem_.in_features + first_depth;
    pack_panel(source, problem_.in_features, panel.valid_columns, depth, values, stride);
    for (int64_t k = 0; k < depth; ++k) {
      zero_elements(values + k * stride + panel.valid_columns, panel.columns - panel.valid_columns);
      block.set_update(i, k, 0);
      if (count_zero) block.nonzero_columns(i)[k] = count_nonzero(values + k * stride, panel.valid_columns);
    }
  }
}

template class TransposedColumns<float>;
template class TransposedColumns<double>;

}  // namespace flopcuda::cpu
