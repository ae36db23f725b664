// The columns of a linear layer: column n holds the weights of output feature n, a row of the weight matrix.
#pragma once

#include "../common/problem.h"
#include "column_source.h"
#include "micro_kernel.h"
#include "partition.h"
#include "row_panels.h"

namespace flopcuda::cpu {

template <class Scalar>
class TransposedColumns : public ColumnSource<Scalar> {
 public:
  // `kept`: what is kept of the weight, or null.
  TransposedColumns(const LinearProblem& problem, const Scalar* weight, const PanelWidth& width, int64_t blocks,
                    KeptWeight* kept);

  static int64_t panel_count(const LinearProblem& problem, const PanelWidth& width);

  int64_t block_count() const override { return blocks_.parts; }
  int64_t depth_block() const override;
  BlockLimits limits() const override;
  void layout(int64_t block_index, ColumnBlock<Scalar>& block) const noexcept override;
  void pack(int64_t group, int64_t first_depth, int64_t depth, bool count_zero,
            ColumnBlock<Scalar>& block) const noexcept override;

 private:
  LinearProblem problem_;
  PanelWidth width_;
  RowPanels<Scalar> weight_;
  Partition blocks_;  // of the panels
};

}  // namespace flopcuda::cpu
