// Packs the rows of a product into panels, in parallel over the panels.
#include "row_panels.h"

#include <algorithm>
#include <cstring>

namespace flopcuda::cpu {

template <class Scalar>
void transpose_into_panel(const Scalar* source, int64_t source_stride, int64_t rows, int64_t depth, Scalar* panel,
                          int64_t panel_stride) {
  constexpr int64_t kChunk = kCacheLineBytes / sizeof(Scalar);  // one cache line of every row at a time
  constexpr int64_t kTogether = 4;                              // rows whose values are stored together
  for (int64_t first = 0; first < depth; first += kChunk) {
    const int64_t last = std::min(first + kChunk, depth);
    int64_t row = 0;
    for (; row + kTogether <= rows; row += kTogether) {
      const Scalar* values = source + row * source_stride;
      for (int64_t k = first; k < last; ++k) {
        Scalar together[kTogether];
        for (int64_t i = 0; i < kTogether; ++i) together[i] = values[i * source_stride + k];
        std::memcpy(panel + k * panel_stride + row, together, sizeof(together));
      }
    }
    for (; row < rows; ++row) {
      for (int64_t k = first; k < last; ++k) panel[k * panel_stride + row] = source[row * source_stride + k];
    }
  }
}

template <class Scalar>
RowPanels<Scalar>::RowPanels(const Scalar* values, int64_t groups, int64_t rows, int64_t depth, int64_t max_panel_rows,
                             int64_t depth_block, bool count_zero)
    : groups_(groups),
      panels_{rows, ceil_div(rows, max_panel_rows)},
      depth_(depth),
      depth_block_(depth_block),
      count_zero_(count_zero),
      values_(groups * rows * depth),
      nonzero_(count_zero ? groups * panels_.parts * depth : 0) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < groups_ * panels_.parts; ++i) pack_panel(values, i / panels_.parts, i % panels_.parts);
}

template <class Scalar>
void RowPanels<Scalar>::pack_panel(const Scalar* values, int64_t group, int64_t panel) {
  const int64_t rows = panel_rows(panel);
  const Scalar* source = values + (group * panels_.size + first_row(panel)) * depth_;
  for (int64_t k = 0; k < depth_; k += depth_block_) {
    Scalar* packed = values_.data() + values_offset(group, panel, k);
    const int64_t block = block_depth(k);
    transpose_into_panel(source + k, depth_, rows, block, packed, rows);
    if (!count_zero_) continue;
    int32_t* nonzero = nonzero_.data() + (group * panel_count() + panel) * depth_ + k;
    for (int64_t i = 0; i < block; ++i) {
      nonzero[i] = static_cast<int32_t>(rows - std::count(packed + i * rows, packed + (i + 1) * rows, Scalar{0}));
    }
  }
}

template class RowPanels<float>;
template class RowPanels<double>;
template void transpose_into_panel(const float*, int64_t, int64_t, int64_t, float*, int64_t);
template void transpose_into_panel(const double*, int64_t, int64_t, int64_t, double*, int64_t);

}  // namespace flopcuda::cpu
