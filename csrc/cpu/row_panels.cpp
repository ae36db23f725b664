// Packs blocks of rows into panels.
#include "row_panels.h"

#include <algorithm>
#include <cstring>

#include "copy.h"

namespace flopcuda::cpu {
namespace {

// Asked for before they are read: the rows are too many and too far apart for the hardware to foresee them.
constexpr int64_t kPrefetchedLines = 64;

// A vector of as many rows as it has elements.
template <class Scalar>
struct Square {
  static constexpr int kSize = kBaselineLanes<Scalar>;
  typedef Scalar Vector __attribute__((vector_size(16)));

  Vector rows[kSize];

  void load(const Scalar* source, int64_t stride) {
    for (int i = 0; i < kSize; ++i) std::memcpy(&rows[i], source + i * stride, sizeof(Vector));
  }
  void store(Scalar* target, int64_t stride) const {
    for (int i = 0; i < kSize; ++i) std::memcpy(target + i * stride, &rows[i], sizeof(Vector));
  }
  void transpose();
};

template <>
void Square<float>::transpose() {
  const Vector low0 = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5);
  const Vector low1 = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5);
  const Vector high0 = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7);
  const Vector high1 = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
  rows[0] = __builtin_shufflevector(low0, low1, 0, 1, 4, 5);
  rows[1] = __builtin_shufflevector(low0, low1, 2, 3, 6, 7);
  rows[2] = __builtin_shufflevector(high0, high1, 0, 1, 4, 5);
  rows[3] = __builtin_shufflevector(high0, high1, 2, 3, 6, 7);
}

template <>
void Square<double>::transpose() {
  const Vector first = __builtin_shufflevector(rows[0], rows[1], 0, 2);
  rows[1] = __builtin_shufflevector(rows[0], rows[1], 1, 3);
  rows[0] = first;
}

// Columns [first, last) of at least Square::kSize rows, as many as fill squares.
template <class Scalar>
void transpose_squares(const Scalar* source, int64_t source_stride, int64_t rows, int64_t first, int64_t last,
                       Scalar* target, int64_t target_stride) {
  constexpr int64_t kSize = Square<Scalar>::kSize;
  for (int64_t next = 0; next < rows; next += kSize) {
    const int64_t row = std::min(next, rows - kSize);  // the last rows may overlap those before
    for (int64_t k = first; k + kSize <= last; k += kSize) {
      Square<Scalar> square;
      square.load(source + row * source_stride + k, source_stride);
      square.transpose();
      square.store(target + k * target_stride + row, target_stride);
    }
  }
}

// Columns [first, last), one element after the other.
template <class Scalar>
void transpose_elements(const Scalar* source, int64_t source_stride, int64_t rows, int64_t first, int64_t last,
                        Scalar* target, int64_t target_stride) {
  for (int64_t k = first; k < last; ++k) {
    for (int64_t row = 0; row < rows; ++row) target[k * target_stride + row] = source[row * source_stride + k];
  }
}

}  // namespace

template <class Scalar>
void transpose(const Scalar* source, int64_t source_stride, int64_t rows, int64_t columns, Scalar* target,
               int64_t target_stride) {
  constexpr int64_t kSize = Square<Scalar>::kSize;
  const int64_t in_squares = rows < kSize ? 0 : columns - columns % kSize;
  if (in_squares > 0) transpose_squares(source, source_stride, rows, 0, in_squares, target, target_stride);
  transpose_elements(source, source_stride, rows, in_squares, columns, target, target_stride);
}

namespace {

// Transposes a panel from memory, and asks for what is read next, of its rows and of as many behind them.
template <class Scalar>
void transpose_from_memory(const Scalar* source, int64_t source_stride, int64_t rows, int64_t depth, Scalar* panel,
                           int64_t panel_stride) {
  constexpr int64_t kLine = kCacheLineBytes / sizeof(Scalar);  // one cache line of every row at a time
  const int64_t lines = ceil_div(depth, kLine);
  const int64_t lines_ahead = std::max<int64_t>(1, kPrefetchedLines / rows);
  for (int64_t line = 0; line < lines; ++line) {
    // Behind the panel's end lies the next one.
    const int64_t next = line + lines_ahead, next_row = next < lines ? 0 : rows, next_line = next % lines;
    for (int64_t row = 0; row < rows; ++row) {
      __builtin_prefetch(source + (next_row + row) * source_stride + next_line * kLine, 0, 2);
    }
    transpose(source + line * kLine, source_stride, rows, std::min(kLine, depth - line * kLine),
              panel + line * kLine * panel_stride, panel_stride);
  }
}

}  // namespace

template <class Scalar>
RowPanels<Scalar>::RowPanels(const Scalar* values, const MatrixLayout& layout, int64_t groups, int64_t rows,
                             int64_t depth, const PanelWidth& width)
    : source_(values), layout_(layout), groups_(groups), rows_(rows), depth_(depth), width_(width) {
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

template <class Scalar>
void RowPanels<Scalar>::transpose_parts(const Scalar* rows, int64_t row_count, int64_t first_depth, int64_t depth,
                                        Scalar* packed) const noexcept {
  for (int64_t k = 0, length; k < depth; k += length) {
    const int64_t first = first_depth + k, offset = first % layout_.part_length;
    const Scalar* source = rows + first / layout_.part_length * layout_.part_stride + offset;
    Scalar* target = packed + k * max_panel_rows();
    length = std::min(layout_.part_length - offset, depth - k);
    if (layout_.row_stride == 1 && length == 1) {
      copy_elements(source, row_count, target);
    } else if (length >= kCacheLineBytes / int64_t{sizeof(Scalar)}) {
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
template void transpose(const float*, int64_t, int64_t, int64_t, float*, int64_t);
template void transpose(const double*, int64_t, int64_t, int64_t, double*, int64_t);

}  // namespace flopcuda::cpu
