// Packs blocks of rows into panels.
#include "row_panels.h"

#include <algorithm>

#include "copy.h"
#include "transpose.h"

namespace flopcuda::cpu {

bool MatrixLayout::is_reversed() const {
  for (size_t i = 0; i < offsets.size(); ++i) {
    if (offsets[i] != static_cast<int64_t>(offsets.size() - 1 - i)) return false;
  }
  return !offsets.empty();
}

template <class Scalar>
RowPanels<Scalar>::RowPanels(const Scalar* values, const MatrixLayout& layout, int64_t groups, int64_t rows,
                             int64_t depth, const PanelWidth& width)
    : source_(values),
      layout_(layout),
      is_reversed_(layout.is_reversed()),
      groups_(groups),
      rows_(rows),
      depth_(depth),
      width_(width) {
  const Partition steps{ceil_div(rows, width.step), ceil_div(rows, width.max)};
  for (int64_t panel = 0; panel < steps.parts; ++panel) {
    const int64_t first_row = steps.begin(panel) * width.step, packed_rows = steps.length(panel) * width.step;
    panels_.push_back({first_row, std::min(packed_rows, rows - first_row), packed_rows, panel + 1});
  }
  for (int64_t panel = panel_count() - 2; panel >= 0; --panel) {
    if (panels_[panel].rows == panels_[panel + 1].rows) panels_[panel].alike_end = panels_[panel + 1].alike_end;
  }
}

template <class Scalar>
void RowPanels<Scalar>::pack_all(int64_t depth_block) {
  packed_ = std::make_shared<const PackedMatrix<Scalar>>(packed_layout(depth_block));
  fill(*packed_, depth_block);
}

template <class Scalar>
void RowPanels<Scalar>::keep(KeptWeight& kept, int64_t depth_block) {
  const PackedLayout layout = packed_layout(depth_block);
  packed_ = kept.find(layout, source_);
  if (packed_) return;
  packed_ = std::make_shared<const PackedMatrix<Scalar>>(layout, source_);
  fill(*packed_, depth_block);
  kept.keep(packed_);
}

template <class Scalar>
void RowPanels<Scalar>::fill(const PackedMatrix<Scalar>& matrix, int64_t depth_block) const {
  const int64_t blocks = ceil_div(depth_, depth_block);
#pragma omp parallel for collapse(3)
  for (int64_t group = 0; group < groups_; ++group) {
    for (int64_t block = 0; block < blocks; ++block) {
      for (int64_t panel = 0; panel < panel_count(); ++panel) {
        const int64_t first_depth = block * depth_block;
        pack_panel(group, panel, first_depth, std::min(depth_block, depth_ - first_depth),
                   matrix.panel(group, first_depth, panel));
      }
    }
  }
}

// Elements of a part from `first` on.
template <class Scalar>
void RowPanels<Scalar>::transpose_listed(const Scalar* part, int64_t row_count, int64_t first, int64_t length,
                                         Scalar* packed) const noexcept {
  const int64_t* const offsets = layout_.offsets.data() + first;
  const int64_t stride = max_panel_rows();
  if (is_reversed_) {
    const int64_t last = length - 1;
    return transpose(part + offsets[last], layout_.row_stride, row_count, length, packed + last * stride, -stride);
  }
  for (int64_t k = 0; k < length; ++k) {
    for (int64_t row = 0; row < row_count; ++row) {
      packed[k * stride + row] = part[row * layout_.row_stride + offsets[k]];
    }
  }
}

template <class Scalar>
void RowPanels<Scalar>::transpose_parts(const Scalar* rows, int64_t row_count, int64_t first_depth, int64_t depth,
                                        Scalar* packed) const noexcept {
  const bool is_short = layout_.part_length < kLine<Scalar>;
  const int64_t line_step = std::max(kLine<Scalar>, layout_.row_stride);
  const int64_t part_span = (row_count - 1) * layout_.row_stride + layout_.part_length;
  const int64_t parts_ahead = std::max<int64_t>(1, kPrefetchedLines / ceil_div(part_span, line_step));
  for (int64_t k = 0, length; k < depth; k += length) {
    const int64_t first = first_depth + k, offset = first % layout_.part_length;
    const Scalar* part = rows + first / layout_.part_length * layout_.part_stride;
    if (is_short) {  // those of the next panel lie behind
      const Scalar* const next = part + parts_ahead * layout_.part_stride;
      for (int64_t i = 0; i < part_span; i += line_step) __builtin_prefetch(next + i, 0, 2);
    }
    const Scalar* source = part + offset;
    Scalar* target = packed + k * max_panel_rows();
    length = std::min(layout_.part_length - offset, depth - k);
    if (!layout_.offsets.empty()) {
      transpose_listed(part, row_count, offset, length, target);
    } else if (layout_.row_stride == 1 && length == 1) {
      copy_elements(source, row_count, target);
    } else if (length >= kLine<Scalar>) {
      transpose_from_memory(source, layout_.row_stride, row_count, length, target, max_panel_rows());
    } else {
      transpose(source, layout_.row_stride, row_count, length, target, max_panel_rows());
    }
  }
}

template <class Scalar>
void RowPanels<Scalar>::pack_panel(int64_t group, int64_t panel, int64_t first_depth, int64_t depth,
                                   Scalar* packed) const noexcept {
  const int64_t rows = panels_[panel].rows, waste = panels_[panel].packed_rows - rows, stride = max_panel_rows();
  const Scalar* source = source_ + (group * rows_ + panels_[panel].first_row) * layout_.row_stride;
  transpose_parts(source, rows, first_depth, depth, packed);
  for (int64_t k = 0; k < depth && waste > 0; ++k) zero_elements(packed + k * stride + rows, waste);
}

template <class Scalar>
void RowPanels<Scalar>::pack(int64_t group, int64_t first, int64_t last, int64_t first_depth, int64_t depth,
                             bool count_zero, RowBlock<Scalar>& block) const noexcept {
  if (block.group == group && block.first_panel == first && block.first_depth == first_depth) return;
  block.group = group, block.first_panel = first, block.first_depth = first_depth;
  block.packed = packed_ ? packed_->panel(group, first_depth, first) : block.values.data();
  block.panel_stride = packed_ ? packed_->panel_size() : depth * max_panel_rows();
  if (packed_) return;
  for (int64_t panel = first; panel < last; ++panel) {
    Scalar* packed = block.values.data() + (panel - first) * block.panel_stride;
    pack_panel(group, panel, first_depth, depth, packed);
    if (!count_zero) continue;
    int32_t* nonzero = block.nonzero.data() + (panel - first) * depth;
    for (int64_t k = 0; k < depth; ++k) {
      nonzero[k] = static_cast<int32_t>(count_nonzero(packed + k * max_panel_rows(), panels_[panel].rows));
    }
  }
}

template class RowPanels<float>;
template class RowPanels<double>;

}  // namespace flopcuda::cpu
