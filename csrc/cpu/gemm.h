// The blocked matrix product that every counted CPU kernel is: five loops around a micro-kernel, as in BLIS.
//
//   for each task (column block, group, range of row panels), the tasks shared among threads
//     for each depth block                        columns packed here: they stay in L2
//       for each row block                        rows packed here: they stay in L2
//         for each column panel                   stays in L1
//           for each row panel: micro-kernel      accumulators stay in registers
#pragma once

#include <cstdint>

#include "../common/counters.h"
#include "column_source.h"
#include "micro_kernel.h"
#include "row_panels.h"

namespace flopcuda::cpu {

// Updates packed at a time: a panel of two AVX-512 vectors x 256 updates takes 32 KiB, which leaves room in L1 for the
// rows.
constexpr int64_t kDepthBlock = 256;

// How the columns are cut into blocks and the row panels into ranges; each pair of them, for each group, is a task.
struct TaskGrid {
  int64_t column_blocks;
  int64_t row_ranges;
};

// The grid that finishes first on `threads` threads, when blocks may have at most `max_block_panels` panels.
TaskGrid plan_tasks(int64_t groups, int64_t row_panels, int64_t column_panels, int64_t max_block_panels,
                    int64_t threads);

// Where a product's accumulators begin and its results go.
template <class Scalar>
struct ProductOutput {
  Start start;         // kNothing, kRowBias or kColumnBias
  const Scalar* bias;  // [groups * rows] or [columns + kMaxTileColumns]
  Scalar* values;
  int64_t row_stride;
};

// For float and double.
template <class Scalar>
void multiply(const TileFamily<Scalar>& family, const RowPanels<Scalar>& rows, const ColumnSource<Scalar>& columns,
              int64_t row_ranges, const ProductOutput<Scalar>& output, bool count_zero, Counters& counters);

}  // namespace flopcuda::cpu
