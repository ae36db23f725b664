// Packs im2col panels by runs: the part of a run whose tap lies in the image is one copy, the rest is zeros.
#include "im2col.h"

#include <algorithm>

#include "copy.h"
#include "gemm.h"

namespace flopcuda::cpu {

template <class Scalar>
Im2col<Scalar>::Im2col(const ConvProblem& problem, const Scalar* input, const TileFamily<Scalar>& family,
                       int64_t blocks)
    : problem_(problem),
      input_(input),
      family_(family),
      blocks_{panel_count(problem, family), blocks},
      slices_inside_(outputs_inside(problem.depth)),
      rows_inside_(outputs_inside(problem.height)),
      columns_inside_(outputs_inside(problem.width)) {}

template <class Scalar>
int64_t Im2col<Scalar>::panel_count(const ConvProblem& problem, const TileFamily<Scalar>& family) {
  return ceil_div(problem.batch * output_size(problem), family.max_columns());
}

template <class Scalar>
int64_t Im2col<Scalar>::depth_block() const {
  return std::min(kDepthBlock, problem_.in_channels / problem_.groups * kernel_size(problem_));
}

template <class Scalar>
BlockLimits Im2col<Scalar>::limits() const {
  const int64_t panels = blocks_.length(0);
  const int64_t columns = panels * family_.max_columns();
  return {panels, std::min(columns, panels + ceil_div(columns, problem_.width.out_size) + 1), columns * depth_block()};
}

template <class Scalar>
void Im2col<Scalar>::layout(int64_t block_index, ColumnBlock<Scalar>& block) const noexcept {
  const int64_t out_height = problem_.height.out_size, out_width = problem_.width.out_size;
  const int64_t columns = problem_.batch * output_size(problem_);
  const int64_t max_columns = family_.max_columns();

  int64_t column = blocks_.begin(block_index) * max_columns;
  int64_t x = column % out_width;
  int64_t y = column / out_width % out_height;
  int64_t z = column / (out_width * out_height) % problem_.depth.out_size;
  int64_t image = column / output_size(problem_);
  for (int64_t i = 0; i < blocks_.length(block_index); ++i) {
    const int64_t valid_columns = std::min(max_columns, columns - column);
    block.add_panel(i * max_columns * depth_block());
    for (int64_t panel_column = 0; panel_column < valid_columns;) {
      const int64_t length = std::min(out_width - x, valid_columns - panel_column);
      const int64_t output_offset =
          image * problem_.out_channels * output_size(problem_) + (z * out_height + y) * out_width + x;
      block.add_run({image, z, y, x, output_offset, panel_column, length});
      panel_column += length;
      x += length;
      if (x == out_width) x = 0, ++y;
      if (y == out_height) y = 0, ++z;
      if (z == problem_.depth.out_size) z = 0, ++image;
    }
    block.finish_panel(ceil_div(valid_columns, family_.lanes) * family_.lanes);
    column += valid_columns;
  }
  for (int64_t k = 0; k < depth_block(); ++k) block.value_offsets[k] = k * max_columns;
}

template <class Scalar>
typename Im2col<Scalar>::Tap Im2col<Scalar>::tap(int64_t group, int64_t depth) const {
  const int64_t row = depth / problem_.width.kernel_size;
  const int64_t slice = row / problem_.height.kernel_size;
  return {problem_.in_channels / problem_.groups * group + slice / problem_.depth.kernel_size,
          slice % problem_.depth.kernel_size, row % problem_.height.kernel_size, depth % problem_.width.kernel_size};
}

template <class Scalar>
void Im2col<Scalar>::advance(Tap& tap) const {
  if (++tap.x < problem_.width.kernel_size) return;
  tap.x = 0;
  if (++tap.y < problem_.height.kernel_size) return;
  tap.y = 0;
  if (++tap.z < problem_.depth.kernel_size) return;
  tap.z = 0;
  ++tap.channel;
}

template <class Scalar>
void Im2col<Scalar>::pack(int64_t group, int64_t first_depth, int64_t depth, bool count_zero,
                          ColumnBlock<Scalar>& block) const noexcept {
  Tap tap = this->tap(group, first_depth);
  // Update by update, all panels of it at a time: the panels' columns are neighbours in the image.
  for (int64_t k = 0; k < depth; ++k, advance(tap)) {
    for (size_t i = 0; i < block.panels.size(); ++i) {
      const ColumnPanel& panel = block.panels[i];
      Scalar* values = block.values.data() + panel.values_offset + block.value_offsets[k];
      block.pad_columns(i)[k] = static_cast<int32_t>(pack_panel(tap, block, panel, values));
      if (count_zero) block.nonzero_columns(i)[k] = count_nonzero(values, panel.valid_columns);
    }
  }
}

template <class Scalar>
int64_t Im2col<Scalar>::pack_panel(const Tap& tap, const ColumnBlock<Scalar>& block, const ColumnPanel& panel,
                                   Scalar* values) const {
  int64_t padding = 0;
  for (int64_t i = panel.first_run; i < panel.first_run + panel.run_count; ++i) {
    const ColumnRun& run = block.runs[i];
    const Range columns{run.x, run.x + run.length};
    const bool row_is_inside = slices_inside_[tap.z].contains(run.z) && rows_inside_[tap.y].contains(run.y);
    const Range inside = row_is_inside ? intersect(columns, columns_inside_[tap.x]) : Range{columns.end, columns.end};
    Scalar* target = values + run.panel_column - columns.begin;  // target[x] is output column x's
    if (inside.length() < run.length) {
      const Range before{columns.begin, std::min(inside.begin, columns.end)};
      const Range after{before.end + inside.length(), columns.end};
      zero_elements(target + before.begin, before.length());
      zero_elements(target + after.begin, after.length());
      padding += before.length() + after.length();
    }
    if (inside.length() > 0) {
      const Scalar* row =
          input_row(problem_, input_, run.image, tap.channel, tap_position(problem_.depth, run.z, tap.z),
                    tap_position(problem_.height, run.y, tap.y));
      copy_strided(row + tap_position(problem_.width, inside.begin, tap.x), problem_.width.stride, inside.length(),
                   target + inside.begin);
    }
  }
  zero_elements(values + panel.valid_columns, panel.columns - panel.valid_columns);
  return padding;
}

template class Im2col<float>;
template class Im2col<double>;

}  // namespace flopcuda::cpu
