// The columns of a convolution as shifted windows: a band of the padded image is copied once, and every tap of the
// kernel reads it at another offset. Nothing is copied per tap, as im2col does, at the price of waste columns: the
// outputs of a band are numbered with the padded image's width as pitch, so the columns between the end of one row and
// the next are waste.
//
// With a stride, the padded image is copied as stride_height x stride_width planes (phases), so that the taps of
// consecutive outputs are consecutive floats: output o's tap t lies at padded position o * stride + t * dilation, which
// is element o + t * dilation / stride of phase t * dilation % stride.
#pragma once

#include <vector>

#include "../common/problem.h"
#include "column_source.h"
#include "micro_kernel.h"
#include "partition.h"
#include "taps.h"

namespace flopcuda::cpu {

class ShiftedWindows : public ColumnSource {
 public:
  ShiftedWindows(const Conv2dProblem& problem, const float* input, const TileFamily& family, int64_t threads);

  // Waste columns included, for one image when it is a single band.
  static int64_t columns_per_image(const Conv2dProblem& problem);

  int64_t block_count() const override { return problem_.batch * bands_.parts; }
  int64_t depth_block() const override { return channel_block_ * taps_; }
  BlockLimits limits() const override;
  void layout(int64_t block_index, ColumnBlock& block) const noexcept override;
  void pack(int64_t group, int64_t first_depth, int64_t depth, bool count_zero,
            ColumnBlock& block) const noexcept override;

 private:
  Range band_rows(int64_t block_index) const;
  int64_t phase_rows() const;  // of the largest band
  int64_t phase_size() const { return phase_rows() * pitch_; }
  int64_t channel_size() const { return problem_.stride_height * problem_.stride_width * phase_size(); }
  void lay_out_panels(int64_t image, const Range& rows, ColumnBlock& block) const;
  void lay_out_taps(ColumnBlock& block) const;
  int64_t count_pad_columns(const ColumnBlock& block, const ColumnPanel& panel, int64_t tap_y, int64_t tap_x) const;
  void pack_phase(const float* image, int64_t first_row, int64_t phase_y, int64_t phase_x, int64_t rows,
                  float* target) const;

  Conv2dProblem problem_;
  const float* input_;
  const TileFamily& family_;
  int64_t taps_;
  int64_t channel_block_;  // input channels packed at a time
  int64_t pitch_;          // floats from one row of a phase to the next
  Partition bands_;        // of the output's rows
  std::vector<Range> rows_inside_, columns_inside_;
  std::vector<bool> phase_rows_used_, phase_columns_used_;
};

}  // namespace flopcuda::cpu
