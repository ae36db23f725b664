// The columns of a convolution by im2col: column n holds the taps of output n, and a panel is copied together for every
// tap. Columns go on from one output row and one image to the next, so that small images fill the tiles too.
#pragma once

#include <vector>

#include "../common/problem.h"
#include "column_source.h"
#include "micro_kernel.h"
#include "partition.h"
#include "taps.h"

namespace flopcuda::cpu {

template <class Scalar>
class Im2col : public ColumnSource<Scalar> {
 public:
  Im2col(const ConvProblem& problem, const Scalar* input, const PanelWidth& width, int64_t blocks);

  // Panels that the columns of a convolution fill.
  static int64_t panel_count(const ConvProblem& problem, const PanelWidth& width);

  int64_t block_count() const override { return blocks_.parts; }
  int64_t depth_block() const override;
  BlockLimits limits() const override;
  void layout(int64_t block_index, ColumnBlock<Scalar>& block) const noexcept override;
  void pack(int64_t group, int64_t first_depth, int64_t depth, bool count_zero,
            ColumnBlock<Scalar>& block) const noexcept override;

 private:
  // The taps of a kernel in one channel.
  struct Tap {
    int64_t z, y, x;
  };

  Tap tap(int64_t index) const;

  // How one tap's columns are copied, in any channel: fills block.copies and gives each padded panel's padding to every
  // `taps`-th update from `first` on.
  void plan_copies(const Tap& tap, int64_t first, int64_t depth, ColumnBlock<Scalar>& block) const;
  int64_t plan_run(const Tap& tap, const ColumnRun& run, int64_t panel_offset, ColumnBlock<Scalar>& block) const;

  ConvProblem problem_;
  const Scalar* input_;
  PanelWidth width_;
  Partition blocks_;  // of the panels
  int64_t taps_;
  Interior interior_;
  std::vector<Range> slices_inside_, rows_inside_, columns_inside_;
};

}  // namespace flopcuda::cpu
