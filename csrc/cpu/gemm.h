// The blocked matrix product that every counted CPU kernel is: five loops around a micro-kernel, as in BLIS.
//
//   for each task (column block, group, range of row panels, range of depth), the tasks shared among threads
//     for each depth block                        columns packed here: they stay in L2
//       for each row block                        rows packed here: they stay in L2
//         for each column panel                   stays in L1
//           micro-kernel: for each row panel      accumulators stay in registers
#pragma once

#include <algorithm>
#include <cstdint>

#include "../common/counters.h"
#include "column_source.h"
#include "micro_kernel.h"
#include "row_panels.h"

namespace flopcuda::cpu {

// Updates of columns packed at a time. A panel of two AVX-512 vectors x 256 updates takes 32 KiB and leaves room in L1
// for the rows; one of 14 broadcast columns x 512 takes 28 KiB, and longer blocks transpose partial sums less often.
inline int64_t max_depth_block(const PanelWidth& width) { return width.step == 1 ? 512 : 256; }

// Panels in a block of columns that fits L2 beside its rows and outputs. No more of them where they are less deep:
// small blocks stay in L1.
int64_t max_block_panels(const PanelWidth& width, int64_t scalar_bytes);

// How the columns are cut into blocks, the row panels into ranges and the depth, too; each triple of them, for each
// group, is a task. Each range of depth but the first has outputs of its own, which are added to the first one's.
struct TaskGrid {
  int64_t column_blocks;
  int64_t row_ranges;
  int64_t depth_ranges;
};

// A product as what can be shared.
struct ProductShape {
  int64_t groups;
  int64_t row_panels;
  int64_t column_panels;  // or blocks of them, where they are cut already
  int64_t outputs;        // elements, of all groups
  int64_t depth;
  int64_t depth_block;  // updates packed at a time
};

// Of the panels of a product's rows.
template <class Scalar>
PanelWidth row_width(const TileFamily<Scalar>& family, Vectors vectors) {
  return vectors == Vectors::kRows ? PanelWidth{family.lanes, family.max_columns()} : PanelWidth{1, family.max_rows};
}

// Of the panels of a product's columns.
template <class Scalar>
PanelWidth column_width(const TileFamily<Scalar>& family, Vectors vectors) {
  return row_width(family, vectors == Vectors::kRows ? Vectors::kColumns : Vectors::kRows);
}

// Measured: packing a panel of columns takes as long as multiplying it by this many row panels; but where its taps
// share what is packed, next to nothing.
constexpr int64_t kPackingCost = 4, kSharedPackingCost = 0;

// The grid that finishes first on `threads` threads, when blocks may have at most `max_block_panels` panels.
TaskGrid plan_tasks(const ProductShape& shape, int64_t max_block_panels, int64_t packing_cost, int64_t threads);

// Where a product's accumulators begin and its results go.
template <class Scalar>
struct ProductOutput {
  Start start;         // of a tile: kNothing, kRowBias or kColumnBias
  const Scalar* bias;  // for each of the product's rows or columns, and kMaxTileColumns more if it is a tile's columns
  Scalar* values;
  int64_t row_stride;
  int64_t size;      // elements
  int64_t products;  // that each of them is the sum of: as many as updates, or of pairs up to two for each
};

// A bias, if there is one, that a tile can read up to its full width.
template <class Scalar>
AlignedArray<Scalar> widen_bias(const Scalar* bias, int64_t size) {
  if (!bias) return {};
  AlignedArray<Scalar> wide(size + kMaxTileColumns);
  std::copy(bias, bias + size, wide.data());
  std::fill(wide.data() + size, wide.data() + size + kMaxTileColumns, Scalar{0});
  return wide;
}

// For float and double.
template <class Scalar>
void multiply(const TileFamily<Scalar>& family, Vectors vectors, const RowPanels<Scalar>& rows,
              const ColumnSource<Scalar>& columns, const TaskGrid& grid, const ProductOutput<Scalar>& output,
              bool count_zero, Counters& counters);

}  // namespace flopcuda::cpu
