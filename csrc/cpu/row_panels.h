// The rows of a product (the weights of a convolution, the input of a linear layer), packed for the micro-kernel:
// panels of at most family.max_rows rows in which update k's values stand together.
#pragma once

#include <cstdint>

#include "buffer.h"
#include "partition.h"

namespace flopcuda::cpu {

// Writes panel[k * panel_stride + row] = source[row * source_stride + k] for rows x depth values.
template <class Scalar>
void transpose_into_panel(const Scalar* source, int64_t source_stride, int64_t rows, int64_t depth, Scalar* panel,
                          int64_t panel_stride);

template <class Scalar>
class RowPanels {
 public:
  // `values` is row-major, [groups * rows, depth]. Panels are packed one depth block after the other.
  RowPanels(const Scalar* values, int64_t groups, int64_t rows, int64_t depth, int64_t max_panel_rows,
            int64_t depth_block, bool count_zero);

  int64_t groups() const { return groups_; }
  int64_t depth() const { return depth_; }
  int64_t depth_block() const { return depth_block_; }
  int64_t panel_count() const { return panels_.parts; }
  int64_t rows() const { return panels_.size; }
  int64_t first_row(int64_t panel) const { return panels_.begin(panel); }
  int64_t panel_rows(int64_t panel) const { return panels_.length(panel); }

  // The packed values of the depth block that begins at `first_depth`: [block depth][panel_rows].
  const Scalar* values(int64_t group, int64_t panel, int64_t first_depth) const {
    return values_.data() + values_offset(group, panel, first_depth);
  }

  // How many values of update first_depth + i are not 0, at [i]; null unless zeros are counted.
  const int32_t* nonzero(int64_t group, int64_t panel, int64_t first_depth) const {
    return count_zero_ ? nonzero_.data() + (group * panel_count() + panel) * depth_ + first_depth : nullptr;
  }

 private:
  int64_t block_depth(int64_t first_depth) const {
    return depth_ - first_depth < depth_block_ ? depth_ - first_depth : depth_block_;
  }
  int64_t values_offset(int64_t group, int64_t panel, int64_t first_depth) const {
    return group * rows() * depth_ + first_depth * rows() + first_row(panel) * block_depth(first_depth);
  }
  void pack_panel(const Scalar* values, int64_t group, int64_t panel);

  int64_t groups_;
  Partition panels_;
  int64_t depth_;
  int64_t depth_block_;
  bool count_zero_;
  AlignedArray<Scalar> values_;
  AlignedArray<int32_t> nonzero_;
};

}  // namespace flopcuda::cpu
