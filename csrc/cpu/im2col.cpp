// Packs im2col panels by runs: the part of a run whose tap lies in the image is one copy, the rest is zeros.
#include "im2col.h"

#include <algorithm>

#include "copy.h"
#include "gemm.h"

namespace flopcuda::cpu {
namespace {

// Channels are too far apart for the hardware to foresee what is read next.
constexpr int64_t kPrefetchChannels = 8;

}  // namespace

template <class Scalar>
Im2col<Scalar>::Im2col(const ConvProblem& problem, const Scalar* input, const PanelWidth& width, int64_t blocks)
    : problem_(problem),
      input_(input),
      width_(width),
      blocks_{panel_count(problem, width), blocks},
      taps_(kernel_size(problem)),
      interior_(problem),
      slices_inside_(outputs_inside(problem.depth)),
      rows_inside_(outputs_inside(problem.height)),
      columns_inside_(outputs_inside(problem.width)) {}

template <class Scalar>
int64_t Im2col<Scalar>::panel_count(const ConvProblem& problem, const PanelWidth& width) {
  return ceil_div(problem.batch * output_size(problem), width.max);
}

template <class Scalar>
int64_t Im2col<Scalar>::depth_block() const {
  return largest_part(reduction_length(problem_), max_depth_block(width_));
}

template <class Scalar>
BlockLimits Im2col<Scalar>::limits() const {
  const int64_t panels = blocks_.length(0);
  const int64_t columns = panels * width_.max;
  const int64_t runs = std::min(columns, panels + ceil_div(columns, problem_.width.out_size) + 1);
  return {panels, runs, columns * depth_block(), panels};
}

template <class Scalar>
void Im2col<Scalar>::layout(int64_t block_index, ColumnBlock<Scalar>& block) const noexcept {
  const int64_t out_height = problem_.height.out_size, out_width = problem_.width.out_size;
  const int64_t columns = problem_.batch * output_size(problem_);
  const int64_t max_columns = width_.max;

  int64_t column = blocks_.begin(block_index) * max_columns;
  int64_t x = column % out_width;
  int64_t y = column / out_width % out_height;
  int64_t z = column / (out_width * out_height) % problem_.depth.out_size;
  int64_t image = column / output_size(problem_);
  for (int64_t i = 0; i < blocks_.length(block_index); ++i) {
    const int64_t valid_columns = std::min(max_columns, columns - column);
    block.add_panel(i * max_columns * depth_block(), width_.step);
    for (int64_t panel_column = 0; panel_column < valid_columns;) {
      const int64_t length = std::min(out_width - x, valid_columns - panel_column);
      const int64_t output_offset =
          image * problem_.out_channels * output_size(problem_) + (z * out_height + y) * out_width + x;
      const Padding padding = interior_.padding(z, y, {x, x + length});
      block.add_run({image, z, y, x, output_offset, panel_column, length, padding});
      panel_column += length;
      x += length;
      if (x == out_width) x = 0, ++y;
      if (y == out_height) y = 0, ++z;
      if (z == problem_.depth.out_size) z = 0, ++image;
    }
    block.finish_panel(width_.rounded(valid_columns));
    column += valid_columns;
  }
  for (size_t k = 0; k < block.value_offsets.size(); ++k) {
    block.value_offsets[k] = k * max_columns;
    block.set_update(0, k, 0);
  }
}

template <class Scalar>
typename Im2col<Scalar>::Tap Im2col<Scalar>::tap(int64_t index) const {
  const int64_t row = index / problem_.width.kernel_size;
  return {row / problem_.height.kernel_size, row % problem_.height.kernel_size, index % problem_.width.kernel_size};
}

template <class Scalar>
void Im2col<Scalar>::pack(int64_t group, int64_t first_depth, int64_t depth, bool count_zero,
                          ColumnBlock<Scalar>& block) const noexcept {
  const int64_t first_channel = problem_.in_channels / problem_.groups * group;
  const bool is_read_once = taps_ == 1;
  // Tap by tap: where its columns are is the same in every channel.
  for (int64_t first = 0; first < std::min(taps_, depth); ++first) {
    plan_copies(tap((first_depth + first) % taps_), first, depth, block);
    for (int64_t k = first; k < depth; k += taps_) {
      const Scalar* channel = input_ + (first_channel + (first_depth + k) / taps_) * channel_size(problem_);
      Scalar* values = block.values.data() + block.value_offsets[k];
      for (const ColumnCopy& copy : block.copies) {
        if (copy.source == ColumnCopy::kPadding) {
          zero_elements(values + copy.target, copy.length);
        } else {
          if (is_read_once) __builtin_prefetch(channel + kPrefetchChannels * channel_size(problem_) + copy.source);
          copy_strided(channel + copy.source, problem_.width.stride, copy.length, values + copy.target);
        }
      }
    }
  }
  if (!count_zero) return;
  for (size_t i = 0; i < block.panels.size(); ++i) {
    const ColumnPanel& panel = block.panels[i];
    for (int64_t k = 0; k < depth; ++k) {
      const Scalar* values = block.values.data() + panel.values_offset + block.value_offsets[k];
      block.nonzero_columns(i)[k] = count_nonzero(values, panel.valid_columns);
    }
  }
}

template <class Scalar>
void Im2col<Scalar>::plan_copies(const Tap& tap, int64_t first, int64_t depth, ColumnBlock<Scalar>& block) const {
  block.copies.clear();
  for (size_t i = 0; i < block.panels.size(); ++i) {
    const ColumnPanel& panel = block.panels[i];
    int64_t padding = 0;
    for (int64_t j = panel.first_run; j < panel.first_run + panel.run_count; ++j) {
      padding += plan_run(tap, block.runs[j], panel.values_offset, block);
    }
    const int64_t waste = panel.columns - panel.valid_columns;
    if (waste > 0) block.copies.push_back({ColumnCopy::kPadding, panel.values_offset + panel.valid_columns, waste});
    if (panel.update_list == 0) continue;  // has the updates of the layout
    for (int64_t k = first; k < depth; k += taps_) block.set_update(panel.update_list, k, padding);
  }
}

// Returns how many columns of the run are padding.
template <class Scalar>
int64_t Im2col<Scalar>::plan_run(const Tap& tap, const ColumnRun& run, int64_t panel_offset,
                                 ColumnBlock<Scalar>& block) const {
  const Range columns{run.x, run.x + run.length};
  const bool row_is_inside = slices_inside_[tap.z].contains(run.z) && rows_inside_[tap.y].contains(run.y);
  const Range inside = row_is_inside ? intersect(columns, columns_inside_[tap.x]) : Range{columns.end, columns.end};
  const Range before{columns.begin, std::min(inside.begin, columns.end)};
  const Range after{before.end + inside.length(), columns.end};
  const int64_t target = panel_offset + run.panel_column - columns.begin;  // output column x's, from x = 0
  if (inside.length() > 0) {
    const int64_t row = input_row(problem_, run.image, tap_position(problem_.depth, run.z, tap.z),
                                  tap_position(problem_.height, run.y, tap.y));
    const int64_t source = row + tap_position(problem_.width, inside.begin, tap.x);
    block.copies.push_back({source, target + inside.begin, inside.length()});
  }
  for (const Range& padding : {before, after}) {
    if (padding.length() > 0) block.copies.push_back({ColumnCopy::kPadding, target + padding.begin, padding.length()});
  }
  return before.length() + after.length();
}

template class Im2col<float>;
template class Im2col<double>;

}  // namespace flopcuda::cpu
