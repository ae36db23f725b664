// Copies bands of the padded image and says where each tap finds its columns.
#include "shifted_windows.h"

#include <algorithm>

#include "copy.h"
#include "gemm.h"

namespace flopcuda::cpu {
namespace {

constexpr int64_t kBlockBytes = 256 * 1024;         // packed elements of a block, in L2
constexpr int64_t kMaxBandBytes = 4 * kBlockBytes;  // of one row, where even that is larger

// Updates of columns packed at a time, where vectors lie along them: the taps of a channel share cache lines, so that
// L1 has room for more of them than of columns that are packed tap by tap.
constexpr int64_t kMaxVectorUpdates = 576;

// Of columns that are broadcast. Sums of earlier updates stay near where they are of few output channels; those of many
// come from L2 and beyond, and cost more than a block that does not fit L1.
constexpr int64_t kFewOutputChannels = 32, kMaxUpdatesOfFew = 512, kMaxUpdatesOfMany = 1152;

// Channels of more than a page, beyond which the hardware foresees nothing, are asked for ahead.
constexpr int64_t kPageBytes = 4096;

template <class Scalar>
void prefetch_row(const Scalar* row, int64_t size) {
  for (int64_t i = 0; i < size; i += kCacheLineBytes / int64_t{sizeof(Scalar)}) __builtin_prefetch(row + i);
}

// How many elements further than the first tap the last one reads.
int64_t largest_shift(const Axis& axis) { return (axis.kernel_size - 1) * axis.dilation / axis.stride; }

// From one row of windows to the next. Without a stride, the zeros behind one row are also those before the next.
int64_t window_pitch(const ConvProblem& problem) {
  const Axis& axis = problem.width;
  const int64_t shift = largest_shift(axis), pitch = axis.out_size + shift;
  if (axis.stride > 1) return pitch;
  const int64_t zeros_behind = std::max<int64_t>(0, pitch - axis.pad - axis.in_size);
  return pitch - std::min({axis.pad, zeros_behind, shift});  // no less than the outputs
}

// Columns from one row of outputs to the next. None are waste where rows are whole vectors, and tiles have two of them.
int64_t column_pitch(const ConvProblem& problem, const PanelWidth& width) {
  const int64_t out_width = problem.width.out_size;
  const bool are_vectors = width.step > 1 && width.max == 2 * width.step && out_width % width.step == 0;
  return are_vectors ? out_width : window_pitch(problem);
}

std::vector<bool> phases_used(const Axis& axis) {
  std::vector<bool> used(axis.stride, false);
  for (int64_t tap = 0; tap < axis.kernel_size; ++tap) used[tap * axis.dilation % axis.stride] = true;
  return used;
}

// Input channels that are packed at a time.
int64_t choose_channel_block(const ConvProblem& problem, const PanelWidth& width) {
  const bool are_few = problem.out_channels / problem.groups <= kFewOutputChannels;
  const int64_t broadcast_updates = are_few ? kMaxUpdatesOfFew : kMaxUpdatesOfMany;
  const int64_t updates = width.step == 1 ? broadcast_updates : kMaxVectorUpdates;
  const int64_t channels = std::max<int64_t>(1, updates / kernel_size(problem));
  return largest_part(problem.in_channels / problem.groups, channels);
}

// Packed elements in one row of all phases of a block's channels.
int64_t packed_row_size(const ConvProblem& problem, int64_t channel_block) {
  return channel_block * problem.depth.kernel_size * phase_count(problem) * window_pitch(problem);
}

// A few bands more, so that no thread has a block more than another one; unless their halo would matter. A single band
// stays one: its block holds further slices, and threads share the rows of weights.
int64_t share_bands(const ConvProblem& problem, int64_t bands, int64_t threads) {
  int64_t shared = bands;
  while (shared * problem.batch * problem.depth.out_size * problem.groups % threads != 0) ++shared;
  const bool halo_is_small = problem.height.out_size >= 4 * largest_shift(problem.height) * shared;
  return bands > 1 && shared <= problem.height.out_size && halo_is_small ? shared : bands;
}

// Few enough output rows in a band that its packed channels fit; bands enough for as many blocks as are wanted, unless
// they would become so small that their halo or the waste at their ends matters; and as many for each thread.
int64_t choose_bands(const ConvProblem& problem, int64_t row_bytes, int64_t columns_per_slice, const PanelWidth& width,
                     int64_t blocks, int64_t threads) {
  const int64_t out_rows = problem.height.out_size;
  const int64_t max_rows = std::max<int64_t>(1, kBlockBytes / row_bytes - largest_shift(problem.height));
  const int64_t bands_that_fit = ceil_div(out_rows, max_rows);
  const int64_t bands_wanted = ceil_div(blocks, problem.batch * problem.depth.out_size * problem.groups);
  const int64_t bands_not_small = width.step == 1 ? out_rows / 2 : columns_per_slice / (4 * width.max);
  const int64_t bands = std::min(std::max(bands_that_fit, std::min(bands_wanted, bands_not_small)), out_rows);
  return share_bands(problem, bands, threads);
}

}  // namespace

template <class Scalar>
ShiftedWindows<Scalar>::ShiftedWindows(const ConvProblem& problem, const Scalar* input, const PanelWidth& width,
                                       int64_t blocks, int64_t threads)
    : problem_(problem),
      input_(input),
      width_(width),
      taps_(kernel_size(problem)),
      channel_block_(choose_channel_block(problem, width)),
      pitch_(window_pitch(problem)),
      column_pitch_(column_pitch(problem, width)),
      bands_{problem.height.out_size,
             choose_bands(problem, packed_row_size(problem, channel_block_) * int64_t{sizeof(Scalar)},
                          columns_per_slice(problem, width), width, blocks, threads)},
      slices_{problem.batch * problem.depth.out_size, choose_slice_blocks(blocks)},
      slices_inside_(outputs_inside(problem.depth)),
      rows_inside_(outputs_inside(problem.height)),
      columns_inside_(outputs_inside(problem.width)),
      interior_(problem),
      phase_rows_used_(phases_used(problem.height)),
      phase_columns_used_(phases_used(problem.width)) {}

// As many slices in a block as fit, since the weights are read for every block; but as many blocks as are wanted.
template <class Scalar>
int64_t ShiftedWindows<Scalar>::choose_slice_blocks(int64_t blocks) const {
  const int64_t slices = problem_.batch * problem_.depth.out_size;
  if (bands_.parts > 1) return slices;
  const int64_t slices_that_fit = std::max<int64_t>(1, kBlockBytes / (band_size() * int64_t{sizeof(Scalar)}));
  return std::min(slices, std::max(ceil_div(slices, slices_that_fit), ceil_div(blocks, problem_.groups)));
}

template <class Scalar>
bool ShiftedWindows<Scalar>::fit(const ConvProblem& problem, const PanelWidth& width) {
  const int64_t rows = 1 + largest_shift(problem.height);
  return rows * packed_row_size(problem, choose_channel_block(problem, width)) * int64_t{sizeof(Scalar)} <=
         kMaxBandBytes;
}

template <class Scalar>
int64_t ShiftedWindows<Scalar>::columns_per_slice(const ConvProblem& problem, const PanelWidth& width) {
  return (problem.height.out_size - 1) * column_pitch(problem, width) + problem.width.out_size;
}

template <class Scalar>
int64_t ShiftedWindows<Scalar>::phase_rows() const {
  return bands_.length(0) + largest_shift(problem_.height);
}

template <class Scalar>
typename ShiftedWindows<Scalar>::Band ShiftedWindows<Scalar>::band(int64_t block_index, int64_t slice) const {
  const int64_t index = block_index % bands_.parts;
  slice += slices_.begin(block_index / bands_.parts);
  const Range rows{bands_.begin(index), bands_.begin(index) + bands_.length(index)};
  return {slice / problem_.depth.out_size, slice % problem_.depth.out_size, rows};
}

template <class Scalar>
bool ShiftedWindows<Scalar>::fills_blocks() const {
  const int64_t channels = problem_.in_channels / problem_.groups;
  return phase_count(problem_) == 1 && channels % channel_block_ == 0 && bands_.is_even() && slices_.is_even();
}

template <class Scalar>
BlockLimits ShiftedWindows<Scalar>::limits() const {
  const int64_t rows = slices_.length(0) * bands_.length(0);
  const int64_t panels = rows * ceil_div(pitch_, width_.max);
  // The last panel reads up to a tile's width beyond the last window, whose zeros may be those of a row that is not
  // there.
  const int64_t tail = width_.max + largest_shift(problem_.width);
  return {panels, rows + panels, slices_.length(0) * band_size() + tail, panels};
}

template <class Scalar>
void ShiftedWindows<Scalar>::layout(int64_t block_index, ColumnBlock<Scalar>& block) const noexcept {
  // What no phase ever holds is read by waste columns, and as the zeros behind the last row: zeros, since denormals
  // would be slow to multiply.
  if (block.index < 0) {
    const int64_t held = fills_blocks() ? slices_.length(0) * band_size() : 0;
    zero_elements(block.values.data() + held, limits().values - held);
    lay_out_taps(block);  // alike in all blocks
  }
  for (int64_t slice = 0; slice < slice_count(block_index); ++slice) {
    lay_out_panels(band(block_index, slice), slice * band_size(), block);
  }
  lay_out_updates(block);
}

template <class Scalar>
void ShiftedWindows<Scalar>::lay_out_panels(const Band& band, int64_t values_offset, ColumnLayout& block) const {
  const int64_t out_height = problem_.height.out_size, out_width = problem_.width.out_size;
  const int64_t slice_offset =
      band.image * problem_.out_channels * output_size(problem_) + band.z * out_height * out_width;
  const auto add_panel = [&](const Range& panel) {
    const int64_t first_value = value_of(panel.begin);
    block.add_panel(values_offset + first_value, value_of(panel.begin + width_.step) - first_value);
    for (int64_t row = panel.begin / column_pitch_; row * column_pitch_ < panel.end; ++row) {
      const Range run = intersect({row * column_pitch_, row * column_pitch_ + out_width}, panel);
      if (run.length() == 0) continue;
      const int64_t y = band.rows.begin + row;
      const int64_t x = run.begin - row * column_pitch_;
      const int64_t output_offset = slice_offset + y * out_width + x;
      const Padding padding = interior_.padding(band.z, y, {x, x + run.length()});
      block.add_run({band.image, band.z, y, x, output_offset, run.begin - panel.begin, run.length(), padding});
    }
    block.finish_panel(width_.rounded(panel.length()));
  };
  if (width_.step == 1) {  // panels of any width: no waste column between two rows need be multiplied
    const Partition parts{out_width, ceil_div(out_width, width_.max)};
    for (int64_t row = 0; row < band.rows.length(); ++row) {
      for (int64_t part = 0; part < parts.parts; ++part) {
        const int64_t begin = row * column_pitch_ + parts.begin(part);
        add_panel({begin, begin + parts.length(part)});
      }
    }
    return;
  }
  const int64_t columns = (band.rows.length() - 1) * column_pitch_ + out_width;
  for (int64_t first = 0; first < columns; first += width_.max) {
    add_panel({first, std::min(first + width_.max, columns)});
  }
}

template <class Scalar>
void ShiftedWindows<Scalar>::lay_out_taps(ColumnLayout& block) const {
  const Axis &vertical = problem_.height, &horizontal = problem_.width;
  int64_t tap = 0;
  for (int64_t tap_z = 0; tap_z < problem_.depth.kernel_size; ++tap_z) {
    for (int64_t tap_y = 0; tap_y < vertical.kernel_size; ++tap_y) {
      for (int64_t tap_x = 0; tap_x < horizontal.kernel_size; ++tap_x, ++tap) {
        const int64_t step_y = tap_y * vertical.dilation, step_x = tap_x * horizontal.dilation;
        const int64_t phase = step_y % vertical.stride * horizontal.stride + step_x % horizontal.stride;
        block.value_offsets[tap] = tap_z * slice_size() + phase * phase_size() + step_y / vertical.stride * pitch_ +
                                   step_x / horizontal.stride;
      }
    }
  }
  for (int64_t k = taps_; k < depth_block(); ++k) {  // the other channels have the same taps
    block.value_offsets[k] = block.value_offsets[k - taps_] + problem_.depth.kernel_size * slice_size();
  }
}

template <class Scalar>
void ShiftedWindows<Scalar>::lay_out_updates(ColumnLayout& block) const {
  for (int64_t list = 0; list < block.update_lists(); ++list) {
    for (int64_t k = 0; k < taps_; ++k) block.set_update(list, k, 0);
  }
  int64_t list = 1;
  for (const ColumnPanel& panel : block.panels) {
    if (panel.update_list != list) continue;  // none of its own, or another one's
    for (int64_t i = panel.first_run; i < panel.first_run + panel.run_count; ++i) {
      if (block.runs[i].padding != Padding::kNone) count_padding(block.runs[i], block.updates(list));
    }
    ++list;
  }
  for (int64_t list = 0; list < block.update_lists(); ++list) {
    const Update* const updates = block.updates(list);
    for (int64_t k = taps_; k < depth_block(); ++k) block.set_update(list, k, padding_of(updates[k - taps_]));
  }
}

template <class Scalar>
void ShiftedWindows<Scalar>::count_padding(const ColumnRun& run, Update* updates) const {
  const int64_t kernel_width = problem_.width.kernel_size;
  for (const Range& slices : slices_inside_) {
    for (const Range& rows : rows_inside_) {
      const bool row_is_inside = slices.contains(run.z) && rows.contains(run.y);
      for (int64_t tap_x = 0; tap_x < kernel_width; ++tap_x, ++updates) {
        const int64_t inside = intersect({run.x, run.x + run.length}, columns_inside_[tap_x]).length();
        *updates += make_update(0, row_is_inside ? run.length - inside : run.length);
      }
    }
  }
}

template <class Scalar>
void ShiftedWindows<Scalar>::pack(int64_t group, int64_t first_depth, int64_t depth, bool count_zero,
                                  ColumnBlock<Scalar>& block) const noexcept {
  const int64_t first_channel = problem_.in_channels / problem_.groups * group + first_depth / taps_;
  for (int64_t slice = 0; slice < slice_count(block.index); ++slice) {
    const Band band = this->band(block.index, slice);
    Scalar* target = block.values.data() + slice * band_size();
    for (int64_t channel = first_channel; channel < first_channel + depth / taps_; ++channel) {
      for (int64_t tap_z = 0; tap_z < problem_.depth.kernel_size; ++tap_z, target += slice_size()) {
        pack_slice(band, channel, tap_z, target);
      }
    }
  }
  if (count_zero) count_nonzero_columns(depth, block);
}

// Every value is in the columns of several taps: it is looked at once.
template <class Scalar>
void ShiftedWindows<Scalar>::count_nonzero_columns(int64_t depth, ColumnBlock<Scalar>& block) const {
  const int64_t values = limits().values;
  int32_t* const before = block.nonzero_before.data();
  before[0] = 0;
  for (int64_t i = 0; i < values; ++i) before[i + 1] = before[i] + (block.values[i] != 0);
  for (size_t i = 0; i < block.panels.size(); ++i) {
    const ColumnPanel& panel = block.panels[i];
    int32_t* const nonzero = block.nonzero_columns(i);
    zero_elements(nonzero, depth);
    for (int64_t j = panel.first_run; j < panel.first_run + panel.run_count; ++j) {
      const int64_t column = block.runs[j].panel_column;
      const int64_t value = column / width_.step * panel.vector_step + column % width_.step;
      const int32_t* const first = before + panel.values_offset + value;
      const int64_t length = block.runs[j].length;
      for (int64_t k = 0; k < depth; ++k) {
        nonzero[k] += first[block.value_offsets[k] + length] - first[block.value_offsets[k]];
      }
    }
  }
}

template <class Scalar>
void ShiftedWindows<Scalar>::pack_slice(const Band& band, int64_t channel, int64_t tap_z, Scalar* target) const {
  const int64_t packed_rows = band.rows.length() + largest_shift(problem_.height);
  const int64_t z = tap_position(problem_.depth, band.z, tap_z);
  const bool is_inside = slices_inside_[tap_z].contains(band.z);
  const Scalar* slice =
      is_inside ? input_ + input_row(problem_, band.image, z, 0) + channel * channel_size(problem_) : nullptr;
  for (int64_t phase_y = 0; phase_y < problem_.height.stride; ++phase_y) {
    for (int64_t phase_x = 0; phase_x < problem_.width.stride; ++phase_x, target += phase_size()) {
      if (!phase_rows_used_[phase_y] || !phase_columns_used_[phase_x]) continue;
      if (slice) {
        pack_phase(slice, band.rows.begin, phase_y, phase_x, packed_rows, target);
      } else {
        zero_elements(target, packed_rows * pitch_);
      }
    }
  }
}

template <class Scalar>
void ShiftedWindows<Scalar>::pack_phase(const Scalar* slice, int64_t first_row, int64_t phase_y, int64_t phase_x,
                                        int64_t rows, Scalar* target) const {
  // Element r of the phase lies at input position r * stride + phase - pad, like the tap of an output at no dilation.
  const Axis horizontal{problem_.width.in_size, pitch_, 1, problem_.width.stride, problem_.width.pad - phase_x, 1};
  const Range inside = outputs_inside(horizontal, 0);
  const Scalar* first_column = slice + tap_position(horizontal, inside.begin, 0);
  const int64_t channel = channel_size(problem_);
  const bool is_large = channel * int64_t{sizeof(Scalar)} > kPageBytes;
  for (int64_t row = 0; row < rows; ++row, target += pitch_) {
    const int64_t y = (first_row + row) * problem_.height.stride + phase_y - problem_.height.pad;
    if (y < 0 || y >= problem_.height.in_size || inside.length() == 0) {
      zero_elements(target, pitch_);
      continue;
    }
    if (is_large) prefetch_row(slice + channel + y * problem_.width.in_size, problem_.width.in_size);
    zero_elements(target, inside.begin);
    copy_strided(first_column + y * problem_.width.in_size, problem_.width.stride, inside.length(),
                 target + inside.begin);
    zero_elements(target + inside.end, pitch_ - inside.end);
  }
}

template class ShiftedWindows<float>;
template class ShiftedWindows<double>;

}  // namespace flopcuda::cpu
