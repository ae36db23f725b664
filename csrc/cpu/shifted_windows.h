// The columns of a convolution as shifted windows: a band of the padded image is copied once, and every tap of the
// kernel reads it at another offset. An image with depth is one for every slice of the output, with the kernel's depth
// as further channels. Nothing is copied per tap, as im2col does, at the price of waste columns: the
// outputs of a band are numbered with the padded image's width as pitch, so the columns between the end of one row and
// the next are waste; unless rows are whole vectors, of which a tile takes one from the end of a row and the next from
// the beginning of another.
//
// With a stride, the padded image is copied as stride_height x stride_width planes (phases), so that the taps of
// consecutive outputs are consecutive elements: output o's tap t lies at padded position o * stride + t * dilation,
// which is element o + t * dilation / stride of phase t * dilation % stride.
#pragma once

#include <vector>

#include "../common/problem.h"
#include "column_source.h"
#include "micro_kernel.h"
#include "partition.h"
#include "taps.h"

namespace flopcuda::cpu {

template <class Scalar>
class ShiftedWindows : public ColumnSource<Scalar> {
 public:
  // `blocks` are wanted, all groups taken together, for so many threads.
  ShiftedWindows(const ConvProblem& problem, const Scalar* input, const PanelWidth& width, int64_t blocks,
                 int64_t threads);

  // Whether a band of one row stays in L2. Otherwise, as with long signals of many channels, windows are no gain.
  static bool fit(const ConvProblem& problem, const PanelWidth& width);

  // Waste columns included, for one output slice when it is a single band.
  static int64_t columns_per_slice(const ConvProblem& problem, const PanelWidth& width);

  int64_t block_count() const override { return slices_.parts * bands_.parts; }
  int64_t depth_block() const override { return channel_block_ * taps_; }
  BlockLimits limits() const override;
  void layout(int64_t block_index, ColumnBlock<Scalar>& block) const noexcept override;
  void pack(int64_t group, int64_t first_depth, int64_t depth, bool count_zero,
            ColumnBlock<Scalar>& block) const noexcept override;

 private:
  // The rows of one output slice in a block, which holds them of one or several slices.
  struct Band {
    int64_t image, z;
    Range rows;
  };

  // Slices of which a block holds a band.
  int64_t slice_count(int64_t block_index) const { return slices_.length(block_index / bands_.parts); }
  Band band(int64_t block_index, int64_t slice) const;
  int64_t choose_slice_blocks(int64_t blocks) const;
  int64_t phase_rows() const;  // of the largest band
  int64_t phase_size() const { return phase_rows() * pitch_; }
  // Of a channel, at one of the kernel's depths.
  int64_t slice_size() const { return phase_count(problem_) * phase_size(); }
  int64_t band_size() const { return channel_block_ * problem_.depth.kernel_size * slice_size(); }
  // Whether every packing of every block writes all of its bands' elements.
  bool fills_blocks() const;
  // Where a column's values begin, from those of the band's first one.
  int64_t value_of(int64_t column) const { return column / column_pitch_ * pitch_ + column % column_pitch_; }
  void lay_out_panels(const Band& band, int64_t values_offset, ColumnLayout& block) const;
  void lay_out_taps(ColumnLayout& block) const;
  void lay_out_updates(ColumnLayout& block) const;
  // Adds the padding of a run's columns to the updates of the first channel's taps.
  void count_padding(const ColumnRun& run, Update* updates) const;
  void count_nonzero_columns(int64_t depth, ColumnBlock<Scalar>& block) const;
  void pack_slice(const Band& band, int64_t channel, int64_t tap_z, Scalar* target) const;
  void pack_phase(const Scalar* slice, int64_t first_row, int64_t phase_y, int64_t phase_x, int64_t rows,
                  Scalar* target) const;

  ConvProblem problem_;
  const Scalar* input_;
  PanelWidth width_;
  int64_t taps_;
  int64_t channel_block_;  // input channels packed at a time
  int64_t pitch_;          // elements from one row of a phase to the next
  int64_t column_pitch_;   // columns from one row of outputs to the next
  Partition bands_;        // of an output slice's rows
  Partition slices_;       // of all images
  std::vector<Range> slices_inside_, rows_inside_, columns_inside_;
  Interior interior_;
  std::vector<bool> phase_rows_used_, phase_columns_used_;
};

}  // namespace flopcuda::cpu
