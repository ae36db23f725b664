// The rows of a matrix (the weights of a convolution, the input of a linear layer or its weight), packed for the
// micro-kernel: panels of a few rows in which update k's values stand together.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "buffer.h"
#include "kept_weight.h"
#include "micro_kernel.h"
#include "partition.h"

namespace flopcuda::cpu {

// A block of packed rows: the work of one thread, packed again and again.
template <class Scalar>
struct RowBlock {
  RowBlock(int64_t panels, int64_t panel_rows, int64_t depth)
      : values(panels * panel_rows * depth), nonzero(panels * depth) {}

  // Of one of the panels, which hold `depth` updates: [depth][panel rows] and [depth].
  const Scalar* panel_values(int64_t panel) const { return packed + (panel - first_panel) * panel_stride; }
  const int32_t* panel_nonzero(int64_t panel, int64_t depth) const {
    return nonzero.data() + (panel - first_panel) * depth;
  }

  // What is packed; nothing before the first time.
  int64_t group = -1, first_panel = -1, first_depth = -1;
  AlignedArray<Scalar> values;     // panel by panel, [depth][panel rows]
  const Scalar* packed = nullptr;  // the values, unless all panels are packed elsewhere
  int64_t panel_stride = 0;        // from one panel of `packed` to the next
  AlignedArray<int32_t> nonzero;   // [panel][depth]; of zeros that are counted
};

// Where the elements of a row-major matrix lie: rows are so far apart, and have parts of so many elements, which are
// dense or else so far behind a part's begin.
struct MatrixLayout {
  int64_t row_stride, part_length, part_stride;
  std::vector<int64_t> offsets = {};

  static MatrixLayout dense(int64_t depth) { return {depth, depth, depth}; }

  // Whether a part is dense, but for the order of its elements.
  bool is_reversed() const;
};

struct RowPanel {
  int64_t first_row;  // in a group
  int64_t rows;
  int64_t packed_rows;  // those beyond `rows` are zeros
  int64_t alike_end;    // the panels from this one on up to that one have as many rows
};

template <class Scalar>
class RowPanels {
 public:
  // `values` is a matrix of [groups * rows, depth].
  RowPanels(const Scalar* values, const MatrixLayout& layout, int64_t groups, int64_t rows, int64_t depth,
            const PanelWidth& width);

  int64_t groups() const { return groups_; }
  int64_t depth() const { return depth_; }
  int64_t panel_count() const { return static_cast<int64_t>(panels_.size()); }
  int64_t max_panel_rows() const { return width_.max; }
  int64_t rows() const { return rows_; }
  int64_t bytes() const { return groups_ * rows_ * depth_ * int64_t{sizeof(Scalar)}; }
  const RowPanel& panel(int64_t index) const { return panels_[index]; }

  // Packs all panels of so many updates, once for every block of columns that they are multiplied by.
  void pack_all(int64_t depth_block);

  // Likewise, but takes those that are kept of this matrix, which is dense; keeps them if there are none.
  void keep(KeptWeight& kept, int64_t depth_block);

  // A panel of all that are packed; null if they are not.
  const Scalar* packed_panel(int64_t group, int64_t first_depth, int64_t panel) const {
    return packed_ ? packed_->panel(group, first_depth, panel) : nullptr;
  }

  // Packs one panel: [depth][max_panel_rows()].
  void pack_panel(int64_t group, int64_t panel, int64_t first_depth, int64_t depth, Scalar* packed) const noexcept;

  // Packs the panels from `first` on up to `last`, unless the block holds them already.
  void pack(int64_t group, int64_t first, int64_t last, int64_t first_depth, int64_t depth, bool count_zero,
            RowBlock<Scalar>& block) const noexcept;

 private:
  PackedLayout packed_layout(int64_t depth_block) const { return {groups_, rows_, depth_, depth_block, width_}; }
  void fill(const PackedMatrix<Scalar>& matrix, int64_t depth_block) const;
  void transpose_listed(const Scalar* part, int64_t row_count, int64_t first, int64_t length,
                        Scalar* packed) const noexcept;
  void transpose_parts(const Scalar* rows, int64_t row_count, int64_t first_depth, int64_t depth,
                       Scalar* packed) const noexcept;

  const Scalar* source_;
  MatrixLayout layout_;
  bool is_reversed_;
  int64_t groups_;
  int64_t rows_;
  std::vector<RowPanel> panels_;
  int64_t depth_;
  PanelWidth width_;
  SharedMatrix<Scalar> packed_;
};

}  // namespace flopcuda::cpu
