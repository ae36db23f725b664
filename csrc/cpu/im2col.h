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

class Im2col : public ColumnSource {
 public:
  Im2col(const Conv2dProblem& problem, const float* input, const TileFamily& family, int64_t blocks);

  // Panels that the columns of a convolution fill.
  static int64_t panel_count(const Conv2dProblem& problem, const TileFamily& family);

  int64_t block_count() const override { return blocks_.parts; }
  int64_t depth_block() const override;
  BlockLimits limits() const override;
  void layout(int64_t block_index, ColumnBlock& block) const noexcept override;
  void pack(int64_t group, int64_t first_depth, int64_t depth, bool count_zero,
            ColumnBlock& block) const noexcept override;

 private:
  // What an update multiplies: one tap of the kernel in one input channel.
  struct Tap {
    int64_t channel, y, x;
  };

  // Copies a panel's columns of one update; returns how many of them are padding.
  int64_t pack_panel(const Tap& tap, const ColumnBlock& block, const ColumnPanel& panel, float* values) const;

  Conv2dProblem problem_;
  const float* input_;
  const TileFamily& family_;
  Partition blocks_;  // of the panels
  Axis vertical_, horizontal_;
  int64_t image_size_;
  std::vector<Range> rows_inside_, columns_inside_;
};

}  // namespace flopcuda::cpu
