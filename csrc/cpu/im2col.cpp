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
      rows_inside_(outputs_inside(vertical_axis(problem))),
      columns_inside_(outputs_inside(horizontal_axis(problem))) {}

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
  for (size_t i = 0; i < block.panels.size(); ++i) {
    const ColumnPanel& panel = block.panels[i];
    pack_panel(group, first_depth, depth, block, panel, block.pad_columns(i));
    if (!count_zero) continue;
    for (int64_t k = 0; k < depth; ++k) {
      const float* values = block.values.data() + panel.values_offset + block.value_offsets[k];
      block.nonzero_columns(i)[k] = count_nonzero(values, panel.valid_columns);
    }
  }
}

void Im2col::pack_panel(int64_t group, int64_t first_depth, int64_t depth, const ColumnBlock& block,
                        const ColumnPanel& panel, int32_t* pad_columns) const {
  const Axis vertical = vertical_axis(problem_);
  const Axis horizontal = horizontal_axis(problem_);
  const int64_t plane = problem_.in_height * problem_.in_width;
  const ColumnRun* first_run = block.runs.data() + panel.first_run;

  int64_t tap_x = first_depth % problem_.kernel_width;
  int64_t tap_y = first_depth / problem_.kernel_width % problem_.kernel_height;
  int64_t channel =
      problem_.in_channels / problem_.groups * group + first_depth / (problem_.kernel_width * problem_.kernel_height);
  float* target = block.values.data() + panel.values_offset;
  for (int64_t k = 0; k < depth; ++k, target += family_.max_columns()) {
    int64_t padding = 0;
    for (const ColumnRun* run = first_run; run != first_run + panel.run_count; ++run) {
      float* values = target + run->panel_column;
      const Range columns{run->x, run->x + run->length};
      const Range inside = rows_inside_[tap_y].contains(run->y) ? intersect(columns, columns_inside_[tap_x])
                                                                : Range{columns.end, columns.end};
      if (inside.length() < run->length) {
        const int64_t before = std::min(inside.begin, columns.end) - columns.begin;
        const int64_t after = run->length - before - inside.length();
        zero_floats(values, before);
        zero_floats(values + run->length - after, after);
        padding += before + after;
      }
      if (inside.length() > 0) {
        const float* source = input_ + (run->image * problem_.in_channels + channel) * plane +
                              vertical.tap_position(run->y, tap_y) * problem_.in_width +
                              horizontal.tap_position(inside.begin, tap_x);
        copy_strided_floats(source, problem_.stride_width, inside.length(), values + inside.begin - columns.begin);
      }
    }
    zero_floats(target + panel.valid_columns, panel.columns - panel.valid_columns);
    pad_columns[k] = static_cast<int32_t>(padding);
    if (++tap_x == problem_.kernel_width) tap_x = 0, ++tap_y;
    if (tap_y == problem_.kernel_height) tap_y = 0, ++channel;
  }
}

}  // namespace flopcuda::cpu
