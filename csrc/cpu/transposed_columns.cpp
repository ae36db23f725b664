// Packs panels of transposed rows.
#include "transposed_columns.h"

#include <algorithm>

#include "copy.h"
#include "gemm.h"
#include "row_panels.h"

namespace flopcuda::cpu {

template <class Scalar>
TransposedColumns<Scalar>::TransposedColumns(const LinearProblem& problem, const Scalar* weight,
                                             const PanelWidth& width, int64_t blocks, KeptWeight* kept)
    : problem_(problem),
      width_(width),
      weight_(weight, MatrixLayout::dense(problem.in_features), 1, problem.out_features, problem.in_features, width),
      blocks_{panel_count(problem, width), blocks} {
  if (kept) weight_.keep(*kept, depth_block());
}

template <class Scalar>
int64_t TransposedColumns<Scalar>::panel_count(const LinearProblem& problem, const PanelWidth& width) {
  return ceil_div(problem.out_features, width.max);
}

template <class Scalar>
int64_t TransposedColumns<Scalar>::depth_block() const {
  return largest_part(problem_.in_features, max_depth_block(width_));
}

template <class Scalar>
BlockLimits TransposedColumns<Scalar>::limits() const {
  const int64_t panels = blocks_.length(0);
  return {panels, panels, panels * width_.max * depth_block(), 0};
}

template <class Scalar>
void TransposedColumns<Scalar>::layout(int64_t block_index, ColumnBlock<Scalar>& block) const noexcept {
  const int64_t max_columns = width_.max;
  for (int64_t i = 0; i < blocks_.length(block_index); ++i) {
    const RowPanel& panel = weight_.panel(blocks_.begin(block_index) + i);
    block.add_panel(i * max_columns * depth_block(), width_.step);
    block.add_run({0, 0, 0, panel.first_row, panel.first_row, 0, panel.rows});
    block.finish_panel(panel.packed_rows);
  }
  for (int64_t k = 0; k < depth_block(); ++k) {
    block.value_offsets[k] = k * max_columns;
    block.set_update(0, k, 0);
  }
}

template <class Scalar>
void TransposedColumns<Scalar>::pack(int64_t group, int64_t first_depth, int64_t depth, bool count_zero,
                                     ColumnBlock<Scalar>& block) const noexcept {
  const int64_t first_panel = blocks_.begin(block.index);
  if (const Scalar* kept = weight_.packed_panel(group, first_depth, first_panel)) {
    block.packed = kept;
    return;
  }
  for (size_t i = 0; i < block.panels.size(); ++i) {
    Scalar* values = block.values.data() + block.panels[i].values_offset;
    weight_.pack_panel(group, first_panel + static_cast<int64_t>(i), first_depth, depth, values);
    for (int64_t k = 0; k < depth && count_zero; ++k) {
      block.nonzero_columns(i)[k] = count_nonzero(values + k * width_.max, block.panels[i].valid_columns);
    }
  }
}

template class TransposedColumns<float>;
template class TransposedColumns<double>;

}  // namespace flopcuda::cpu
