// Copies bands of the padded image and says where each tap finds its columns.
#include "shifted_windows.h"

#include <algorithm>

#include "copy.h"
#include "gemm.h"

namespace flopcuda::cpu {
namespace {

constexpr int64_t kBlockFloats = 64 * 1024;  // packed floats of a block: 256 KiB of L2

// How many elements further than the first tap the last one reads.
int64_t largest_shift(const Axis& axis) { return (axis.kernel_size - 1) * axis.dilation / axis.stride; }

int64_t window_pitch(const Conv2dProblem& problem) {
  return problem.out_width + largest_shift(horizontal_axis(problem));
}

std::vector<bool> phases_used(const Axis& axis) {
  std::vector<bool> used(axis.stride, false);
  for (int64_t tap = 0; tap < axis.kernel_size; ++tap) used[tap * axis.dilation % axis.stride] = true;
  return used;
}

// Few enough output rows in a band that its packed channels fit; bands enough to keep the threads busy, unless they
// would become so small that the waste at their ends matters.
int64_t choose_bands(const Conv2dProblem& problem, int64_t channel_block, int64_t max_columns, int64_t threads) {
  const int64_t row_floats = channel_block * problem.stride_height * problem.stride_width * window_pitch(problem);
  const int64_t halo_rows = largest_shift(vertical_axis(problem));
  const int64_t max_rows = std::max<int64_t>(1, kBlockFloats / row_floats - halo_rows);
  const int64_t bands_that_fit = ceil_div(problem.out_height, max_rows);
  const int64_t bands_wanted = ceil_div(4 * threads, problem.batch * problem.groups);
  const int64_t bands_not_small = ShiftedWindows::columns_per_image(problem) / (4 * max_columns);
  return std::min(std::max(bands_that_fit, std::min(bands_wanted, bands_not_small)), problem.out_height);
}

}  // namespace

ShiftedWindows::ShiftedWindows(const Conv2dProblem& problem, const float* input, const TileFamily& family,
                               int64_t threads)
    : problem_(problem),
      input_(input),
      family_(family),
      taps_(problem.kernel_height * problem.kernel_width),
      channel_block_(std::min(std::max<int64_t>(1, kDepthBlock / taps_), problem.in_channels / problem.groups)),
      pitch_(window_pitch(problem)),
      bands_{problem.out_height, choose_bands(problem, channel_block_, family.max_columns(), threads)},
      rows_inside_(outputs_inside(vertical_axis(problem))),
      columns_inside_(outputs_inside(horizontal_axis(problem))),
      phase_rows_used_(phases_used(vertical_axis(problem))),
      phase_columns_used_(phases_used(horizontal_axis(problem))) {}

int64_t ShiftedWindows::columns_per_image(const Conv2dProblem& problem) {
  return (problem.out_height - 1) * window_pitch(problem) + problem.out_width;
}

int64_t ShiftedWindows::phase_rows() const { return bands_.length(0) + largest_shift(vertical_axis(problem_)); }

Range ShiftedWindows::band_rows(int64_t block_index) const {
  const int64_t band = block_index % bands_.parts;
  return {bands_.begin(band), bands_.begin(band) + bands_.length(band)};
}

BlockLimits ShiftedWindows::limits() const {
  const int64_t rows = bands_.length(0);
  const int64_t panels = ceil_div(rows * pitch_, family_.max_columns());
  // The last panel reads up to a tile's width beyond the last window.
  return {panels, rows + panels, channel_block_ * channel_size() + family_.max_columns()};
}

void ShiftedWindows::layout(int64_t block_index, ColumnBlock& block) const noexcept {
  // Waste columns read floats that no phase ever holds: zeros, since denormals would be slow to multiply.
  if (block.index < 0) zero_floats(block.values.data(), limits().values);
  lay_out_panels(block_index / bands_.parts, band_rows(block_index), block);
  lay_out_taps(block);
}

void ShiftedWindows::lay_out_panels(int64_t image, const Range& rows, ColumnBlock& block) const {
  const int64_t image_offset = image * problem_.out_channels * problem_.out_height * problem_.out_width;
  const int64_t columns = (rows.length() - 1) * pitch_ + problem_.out_width;
  for (int64_t first = 0; first < columns; first += family_.max_columns()) {
    const Range panel{first, std::min(first + family_.max_columns(), columns)};
    block.add_panel(first);
    for (int64_t row = panel.begin / pitch_; row * pitch_ < panel.end; ++row) {
      const Range run = intersect({row * pitch_, row * pitch_ + problem_.out_width}, panel);
      if (run.length() == 0) continue;
      const int64_t y = rows.begin + row;
      const int64_t x = run.begin - row * pitch_;
      const int64_t output_offset = image_offset + y * problem_.out_width + x;
      block.add_run({image, y, x, output_offset, run.begin - panel.begin, run.length()});
    }
    block.finish_panel(ceil_div(panel.length(), family_.lanes) * family_.lanes);
  }
}

void ShiftedWindows::lay_out_taps(ColumnBlock& block) const {
  const Axis vertical = vertical_axis(problem_);
  const Axis horizontal = horizontal_axis(problem_);
  int64_t tap = 0;
  for (int64_t tap_y = 0; tap_y < vertical.kernel_size; ++tap_y) {
    for (int64_t tap_x = 0; tap_x < horizontal.kernel_size; ++tap_x, ++tap) {
      const int64_t step_y = tap_y * vertical.dilation, step_x = tap_x * horizontal.dilation;
      const int64_t phase = step_y % vertical.stride * horizontal.stride + step_x % horizontal.stride;
      block.value_offsets[tap] = phase * phase_size() + step_y / vertical.stride * pitch_ + step_x / horizontal.stride;
      for (size_t i = 0; i < block.panels.size(); ++i) {
        block.pad_columns(i)[tap] = static_cast<int32_t>(count_pad_columns(block, block.panels[i], tap_y, tap_x));
      }
    }
  }
  for (int64_t k = taps_; k < depth_block(); ++k) {  // the other channels have the same taps
    block.value_offsets[k] = block.value_offsets[k - taps_] + channel_size();
    for (size_t i = 0; i < block.panels.size(); ++i) block.pad_columns(i)[k] = block.pad_columns(i)[k - taps_];
  }
}

int64_t ShiftedWindows::count_pad_columns(const ColumnBlock& block, const ColumnPanel& panel, int64_t tap_y,
                                          int64_t tap_x) const {
  int64_t padding = 0;
  for (int64_t i = panel.first_run; i < panel.first_run + panel.run_count; ++i) {
    const ColumnRun& run = block.runs[i];
    padding += run.length;
    if (!rows_inside_[tap_y].contains(run.y)) continue;
    padding -= intersect({run.x, run.x + run.length}, columns_inside_[tap_x]).length();
  }
  return padding;
}

void ShiftedWindows::pack(int64_t group, int64_t first_depth, int64_t depth, bool count_zero,
                          ColumnBlock& block) const noexcept {
  const Range rows = band_rows(block.index);
  const int64_t image = block.index / bands_.parts;
  const int64_t first_channel = problem_.in_channels / problem_.groups * group + first_depth / taps_;
  const int64_t packed_rows = rows.length() + largest_shift(vertical_axis(problem_));
  const int64_t plane = problem_.in_height * problem_.in_width;
  for (int64_t channel = 0; channel < depth / taps_; ++channel) {
    const float* source = input_ + (image * problem_.in_channels + first_channel + channel) * plane;
    float* target = block.values.data() + channel * channel_size();
    for (int64_t phase_y = 0; phase_y < problem_.stride_height; ++phase_y) {
      for (int64_t phase_x = 0; phase_x < problem_.stride_width; ++phase_x, target += phase_size()) {
        if (!phase_rows_used_[phase_y] || !phase_columns_used_[phase_x]) continue;
        pack_phase(source, rows.begin, phase_y, phase_x, packed_rows, target);
      }
    }
  }
  if (!count_zero) return;
  for (size_t i = 0; i < block.panels.size(); ++i) {
    const ColumnPanel& panel = block.panels[i];
    for (int64_t k = 0; k < depth; ++k) {
      const float* values = block.values.data() + panel.values_offset + block.value_offsets[k];
      int32_t nonzero = 0;
      for (int64_t j = panel.first_run; j < panel.first_run + panel.run_count; ++j) {
        nonzero += count_nonzero(values + block.runs[j].panel_column, block.runs[j].length);
      }
      block.nonzero_columns(i)[k] = nonzero;
    }
  }
}

void ShiftedWindows::pack_phase(const float* image, int64_t first_row, int64_t phase_y, int64_t phase_x, int64_t rows,
                                float* target) const {
  // Element r of the phase lies at input position r * stride + phase - pad, like the tap of an output at no dilation.
  const Axis horizontal{problem_.in_width, pitch_, 1, problem_.stride_width, problem_.pad_left - phase_x, 1};
  const Range inside = outputs_inside(horizontal, 0);
  const float* first_column = image + horizontal.tap_position(inside.begin, 0);
  for (int64_t row = 0; row < rows; ++row, target += pitch_) {
    const int64_t y = (first_row + row) * problem_.stride_height + phase_y - problem_.pad_top;
    if (y < 0 || y >= problem_.in_height || inside.length() == 0) {
      zero_floats(target, pitch_);
      continue;
    }
    zero_floats(target, inside.begin);
    copy_strided_floats(first_column + y * problem_.in_width, problem_.stride_width, inside.length(),
                        target + inside.begin);
    zero_floats(target + inside.end, pitch_ - inside.end);
  }
}

}  // namespace flopcuda::cpu
