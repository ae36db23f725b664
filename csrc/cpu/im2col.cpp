// Packs im2col panels by runs: the part of a run whose tap lies in the image is one copy, the rest is zeros.
#include "im2col.h"

#include <algorithm>

#include "copy.h"
#include "gemm.h"

namespace flopcuda::cpu {

Im2col::Im2col(const Conv2dProblem& problem, const float* input, const TileFamily& family, int64_t blocks)
    : problem_(problem),
      input_(input),
      family_(family),
      blocks_{panel_count(problem, family), blocks},
      vertical_(vertical_axis(problem)),
      horizontal_(horizontal_axis(problem)),
      image_size_(problem.in_channels * problem.in_height * problem.in_width),
      rows_inside_(outputs_inside(vertical_)),
      columns_inside_(outputs_inside(horizontal_)) {}

int64_t Im2col::panel_count(const Conv2dProblem& problem, const TileFamily& family) {
  return ceil_div(problem.batch * problem.out_height * problem.out_width, family.max_columns());
}

int64_t Im2col::depth_block() const {
  return std::min(kDepthBlock, problem_.in_channels / problem_.groups * problem_.kernel_height * problem_.kernel_width);
}

BlockLimits Im2col::limits() const {
  const int64_t panels = blocks_.length(0);
  const int64_t columns = panels * family_.max_columns();
  return {panels, std::min(columns, panels + ceil_div(columns, problem_.out_width) + 1), columns * depth_block()};
}

void Im2col::layout(int64_t block_index, ColumnBlock& block) const noexcept {
  const int64_t out_size = problem_.out_height * problem_.out_width;
  const int64_t columns = problem_.batch * out_size;
  const int64_t max_columns = family_.max_columns();
  const int64_t first_panel = blocks_.begin(block_index);

  int64_t column = first_panel * max_columns;
  int64_t image = column / out_size;
  int64_t y = column % out_size / problem_.out_width;
  int64_t x = column % problem_.out_width;
  for (int64_t i = 0; i < blocks_.length(block_index); ++i) {
    const int64_t valid_columns = std::min(max_columns, columns - column);
    block.add_panel(i * max_columns * depth_block());
    for (int64_t panel_column = 0; panel_column < valid_columns;) {
      const int64_t length = std::min(problem_.out_width - x, valid_columns - panel_column);
      const int64_t output_offset = image * problem_.out_channels * out_size + y * problem_.out_width + x;
      block.add_run({image, y, x, output_offset, panel_column, length});
      panel_column += length;
      x += length;
      if (x == problem_.out_width) x = 0, ++y;
      if (y == problem_.out_height) y = 0, ++image;
    }
    block.finish_panel(ceil_div(valid_columns, family_.lanes) * family_.lanes);
    column += valid_columns;
  }
  for (int64_t k = 0; k < depth_block(); ++k) block.value_offsets[k] = k * max_columns;
}

void Im2col::pack(int64_t group, int64_t first_depth, int64_t depth, bool count_zero,
                  ColumnBlock& block) const noexcept {
  Tap tap{
      problem_.in_channels / problem_.groups * group + first_depth / (problem_.kernel_width * problem_.kernel_height),
      first_depth / problem_.kernel_width % problem_.kernel_height, first_depth % problem_.kernel_width};
  // Update by update, all panels of it at a time: the panels' columns are neighbours in the image.
  for (int64_t k = 0; k < depth; ++k) {
    for (size_t i = 0; i < block.panels.size(); ++i) {
      const ColumnPanel& panel = block.panels[i];
      float* values = block.values.data() + panel.values_offset + block.value_offsets[k];
      block.pad_columns(i)[k] = static_cast<int32_t>(pack_panel(tap, block, panel, values));
      if (count_zero) block.nonzero_columns(i)[k] = count_nonzero(values, panel.valid_columns);
    }
    if (++tap.x < problem_.kernel_width) continue;
    tap.x = 0;
    if (++tap.y < problem_.kernel_height) continue;
    tap.y = 0;
    ++tap.channel;
  }
}

int64_t Im2col::pack_panel(const Tap& tap, const ColumnBlock& block, const ColumnPanel& panel, float* values) const {
  const float* plane = input_ + tap.channel * problem_.in_height * problem_.in_width;
  int64_t padding = 0;
  for (int64_t i = panel.first_run; i < panel.first_run + panel.run_count; ++i) {
    const ColumnRun& run = block.runs[i];
    const Range columns{run.x, run.x + run.length};
    const Range inside = rows_inside_[tap.y].contains(run.y) ? intersect(columns, columns_inside_[tap.x])
                                                             : Range{columns.end, columns.end};
    float* target = values + run.panel_column - columns.begin;  // target[x] is output column x's
    if (inside.length() < run.length) {
      const Range before{columns.begin, std::min(inside.begin, columns.end)};
      const Range after{before.end + inside.length(), columns.end};
      zero_floats(target + before.begin, before.length());
      zero_floats(target + after.begin, after.length());
      padding += before.length() + after.length();
    }
    if (inside.length() > 0) {
      const float* source = plane + run.image * image_size_ + vertical_.tap_position(run.y, tap.y) * problem_.in_width +
                            horizontal_.tap_position(inside.begin, tap.x);
      copy_strided_floats(source, problem_.stride_width, inside.length(), target + inside.begin);
    }
  }
  zero_floats(values + panel.valid_columns, panel.columns - panel.valid_columns);
  return padding;
}

}  // namespace flopcuda::cpu
