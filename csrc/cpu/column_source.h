// The columns of a product: which output elements they are, and where the micro-kernel finds their values.
//
// A ColumnSource cuts the columns into blocks, one at a time the work of a thread. A block is laid out once (panels of
// a tile's width, and the runs of consecutive output elements in them) and then packed once per group and depth block.
// im2col, shifted windows and the transposed rows of a linear layer are three sources; the blocked product in gemm.cpp
// knows only this interface.
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.h"
#include "micro_kernel.h"
#include "taps.h"

namespace flopcuda::cpu {

// Consecutive columns of a panel that are consecutive elements of one output row. Other columns of the panel are waste.
struct ColumnRun {
  int64_t image, z, y, x;  // where the run begins in the output
  int64_t output_offset;   // from the output row's first element; counts images, z, y and x
  int64_t panel_column;
  int64_t length;
  Padding padding = Padding::kNone;
};

// A part of a run whose values are copied, or set to zero because its taps lie in the padding.
struct ColumnCopy {
  static constexpr int64_t kPadding = -1;

  int64_t source;  // element of an image's channel, or kPadding
  int64_t target;  // from the first value of an update
  int64_t length;
};

struct ColumnPanel {
  int64_t values_offset;  // in ColumnBlock::packed
  int64_t vector_step;    // from one vector's values to the next one's, where vectors lie along columns
  int64_t columns;        // width, waste included
  int64_t valid_columns;
  int64_t first_run, run_count;
  int64_t update_list;  // the first one if no run is padded; others, in the order of the panels, by where they are
  bool contiguous;      // valid columns are a prefix, and consecutive in memory from the first run's output_offset on
};

struct BlockLimits {
  int64_t panels, runs, values;
  int64_t padded_panels;
};

// The block of columns that a thread works on, but for its values: storage that is laid out again and again.
struct ColumnLayout {
  ColumnLayout(const BlockLimits& limits, int64_t depth_block);

  int64_t index = -1;  // of the block that is laid out, -1 before the first
  std::vector<ColumnPanel> panels;
  std::vector<ColumnRun> runs;
  std::vector<ColumnCopy> copies;  // of the tap that is being packed
  // Update k of the packed depth block reads a panel's columns at ColumnBlock::packed + panel.values_offset +
  // value_offsets[k].
  std::vector<int64_t> value_offsets;

  void clear_layout();
  void add_panel(int64_t values_offset, int64_t vector_step);
  void add_run(const ColumnRun& run);
  void finish_panel(int64_t columns);

  // A list has the updates of the packed depth block. Panels without padding share the first one, others one with
  // panels before them that are padded alike.
  int64_t update_lists() const { return update_lists_; }
  Update* updates(int64_t list) const { return updates_.data() + list * depth_block_; }

  // Update k of a list, once value_offsets[k] is known; `padding` of a panel's valid columns hold a padding tap.
  void set_update(int64_t list, int64_t k, int64_t padding) {
    updates(list)[k] = make_update(value_offsets[k], padding);
  }

  // For each update of a panel, how many of its valid columns are not 0.
  int32_t* nonzero_columns(int64_t panel) const { return nonzero_columns_.data() + panel * depth_block_; }

 private:
  bool are_padded_alike(const ColumnPanel& a, const ColumnPanel& b) const;
  int64_t choose_update_list() const;

  int64_t depth_block_;
  int64_t update_lists_ = 1;
  AlignedArray<Update> updates_;
  AlignedArray<int32_t> nonzero_columns_;
};

template <class Scalar>
struct ColumnBlock : ColumnLayout {
  ColumnBlock(const BlockLimits& limits, int64_t depth_block, bool count_zero)
      : ColumnLayout(limits, depth_block),
        values(limits.values),
        nonzero_before(count_zero ? limits.values + 1 : 0),
        packed(values.data()) {}

  AlignedArray<Scalar> values;
  // For each value, how many of those before it are not 0: of columns that overlap, if zeros are counted.
  AlignedArray<int32_t> nonzero_before;
  const Scalar* packed;  // the values, unless they are kept elsewhere
};

template <class Scalar>
class ColumnSource {
 public:
  virtual ~ColumnSource() = default;

  virtual int64_t block_count() const = 0;
  virtual int64_t depth_block() const = 0;  // updates that are packed at a time
  virtual BlockLimits limits() const = 0;   // of the largest block

  // Both run inside a parallel region: they must not throw, so they stay within limits().
  virtual void layout(int64_t block_index, ColumnBlock<Scalar>& block) const noexcept = 0;
  virtual void pack(int64_t group, int64_t first_depth, int64_t depth, bool count_zero,
                    ColumnBlock<Scalar>& block) const noexcept = 0;
};

}  // namespace flopcuda::cpu
