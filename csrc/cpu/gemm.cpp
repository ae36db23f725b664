// The loops of the blocked product, the split among threads, and the tiles at the edges.
#include "gemm.h"

#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "copy.h"
#include "tally.h"
#include "transpose.h"

namespace flopcuda::cpu {
namespace {

constexpr int64_t kRowBlockBytes = 64 * 1024;  // packed rows that are reused from L2

// Outputs so few that threads could not share their tiles equally, and updates so many that a range of them is worth
// sums of its own, which are added up in the end.
constexpr int64_t kFewOutputs = 64 * 1024, kMinRangeDepth = 2048, kMaxDepthRanges = 8;

// One thread's storage.
template <class Scalar>
struct alignas(kThreadAlignment) Workspace {
  ColumnBlock<Scalar> block;
  RowBlock<Scalar> rows;
  // Tiles whose columns are not consecutive in the output: all of a task, since one stays here until it has its last
  // products; or one, if the first block of products is the last one.
  AlignedArray<Scalar> tiles;
  Counters counters;

  Workspace(const BlockLimits& limits, int64_t depth_block, bool count_zero, int64_t row_panels, int64_t panel_rows,
            int64_t tiles, int64_t tile_elements)
      : block(limits, depth_block, count_zero),
        rows(row_panels, panel_rows, depth_block),
        tiles(tiles * tile_elements) {}
};

// The panels of rows from first_panel on up to last_panel, of a group, times a block of columns, in a range of depth.
template <class Scalar>
struct Task {
  int64_t column_block, group, first_panel, last_panel, first_depth, last_depth;
  ProductOutput<Scalar> output;
};

template <class Scalar>
struct Product {
  const TileFamily<Scalar>& family;
  Vectors vectors;
  const RowPanels<Scalar>& rows;
  const ColumnSource<Scalar>& columns;
  int64_t row_block_panels;
  int64_t task_depth;  // of the longest range of it
  bool count_zero;

  bool is_one_depth_block() const { return task_depth <= columns.depth_block(); }
  int64_t tile_elements() const { return family.max_rows * family.max_columns(); }

  // Workspace::tiles of a task of so many panels.
  int64_t detached_tiles(int64_t column_panels, int64_t row_panels) const {
    return is_one_depth_block() ? 1 : column_panels * row_panels;
  }

  void run_task(const Task<Scalar>& task, Workspace<Scalar>& work) const;
  void run_row_block(const Task<Scalar>& task, int64_t first_panel, int64_t last_panel, int64_t first_depth,
                     int64_t depth, Workspace<Scalar>& work) const;
  Tiles<Scalar> column_side(const Task<Scalar>& task, int64_t column_panel, int64_t first_depth, int64_t depth,
                            const Workspace<Scalar>& work) const;
  void run_tiles(const Task<Scalar>& task, int64_t first_panel, int64_t column_panel, bool is_detached, bool is_last,
                 Tiles<Scalar>& tiles, Workspace<Scalar>& work) const;
  Scalar* detached_tile(const Task<Scalar>& task, int64_t row_panel, int64_t column_panel,
                        Workspace<Scalar>& work) const;
};

// Copies the elements of one run of columns to the output from a tile that is not a part of it: because its columns are
// not consecutive there, or because the tile is transposed.
template <class Scalar>
void scatter(Vectors vectors, ColumnRun run, int64_t rows, const Scalar* tile, int64_t tile_stride, Scalar* output,
             int64_t output_stride) {
  output += run.output_offset;
  if (vectors == Vectors::kRows) {
    tile += run.panel_column * tile_stride;
    return transpose(tile, tile_stride, run.length, rows, output, output_stride);
  }
  for (int64_t row = 0; row < rows; ++row) {
    copy_elements(tile + row * tile_stride + run.panel_column, run.length, output + row * output_stride);
  }
}

// Asks for the cache lines that such elements go to: a tile is done before they come from memory.
template <class Scalar>
void prefetch_run(const ColumnRun& run, int64_t rows, const Scalar* output, int64_t output_stride) {
  output += run.output_offset;
  for (int64_t row = 0; row < rows; ++row, output += output_stride) {
    __builtin_prefetch(output, 1);
    __builtin_prefetch(output + run.length - 1, 1);
  }
}

template <class Scalar>
Scalar* Product<Scalar>::detached_tile(const Task<Scalar>& task, int64_t row_panel, int64_t column_panel,
                                       Workspace<Scalar>& work) const {
  if (is_one_depth_block()) return work.tiles.data();
  const int64_t tile = column_panel * (task.last_panel - task.first_panel) + row_panel - task.first_panel;
  return work.tiles.data() + tile * tile_elements();
}

// What all tiles of a column panel share.
template <class Scalar>
Tiles<Scalar> Product<Scalar>::column_side(const Task<Scalar>& task, int64_t column_panel, int64_t first_depth,
                                           int64_t depth, const Workspace<Scalar>& work) const {
  const ColumnPanel& panel = work.block.panels[column_panel];
  Tiles<Scalar> tiles{};
  tiles.depth = depth;
  tiles.whole_pairs = task.output.products - rows.depth() - first_depth;
  tiles.row_values_step = work.rows.panel_stride;
  tiles.column_values = work.block.packed + panel.values_offset;
  tiles.vector_step = panel.vector_step;
  tiles.updates = work.block.updates(panel.update_list);
  tiles.nonzero_columns = work.block.nonzero_columns(column_panel);
  tiles.start = first_depth == task.first_depth ? task.output.start : Start::kOutput;
  return tiles;
}

// The tiles of a column panel and of so many row panels, which are alike, from first_panel on.
template <class Scalar>
void Product<Scalar>::run_tiles(const Task<Scalar>& task, int64_t first_panel, int64_t column_panel, bool is_detached,
                                bool is_last, Tiles<Scalar>& tiles, Workspace<Scalar>& work) const {
  const ProductOutput<Scalar>& output = task.output;
  const ColumnPanel& panel = work.block.panels[column_panel];
  const ColumnRun* first_run = work.block.runs.data() + panel.first_run;
  const RowPanel& row_panel = rows.panel(first_panel);
  const int64_t first_row = task.group * rows.rows() + row_panel.first_row;
  Scalar* output_rows = output.values + first_row * output.row_stride;
  const bool transposed = vectors == Vectors::kRows;
  const int64_t tile_rows = transposed ? panel.columns : row_panel.packed_rows;
  const int64_t tile_columns = transposed ? row_panel.packed_rows : panel.columns;

  tiles.row_values = work.rows.panel_values(first_panel);
  tiles.nonzero_rows = work.rows.panel_nonzero(first_panel, tiles.depth);
  tiles.valid_columns = transposed ? row_panel.rows : panel.valid_columns;
  tiles.products_per_input = row_panel.rows;
  tiles.bias = output.bias;
  if (tiles.start != Start::kNothing) {
    const bool is_of_rows = transposed || tiles.start == Start::kRowBias;
    tiles.bias += is_of_rows ? first_row : first_run->output_offset;
    tiles.bias_step = is_of_rows ? row_panel.rows : 0;
  }
  tiles.output =
      is_detached ? detached_tile(task, first_panel, column_panel, work) : output_rows + first_run->output_offset;
  tiles.output_step = is_detached ? tile_elements() : row_panel.rows * output.row_stride;
  tiles.output_stride = is_detached ? tile_columns : output.row_stride;

  // Every tile's part of every run, with the tile's rows of the output.
  const auto each_run = [&](const auto& visit) {
    for (int64_t i = 0; i < tiles.count; ++i) {
      Scalar* const rows_of_tile = output_rows + i * row_panel.rows * output.row_stride;
      for (int64_t j = 0; j < panel.run_count; ++j) visit(first_run[j], i, rows_of_tile);
    }
  };
  const bool is_scattered = is_detached && is_last;
  if (is_scattered) {
    each_run([&](const ColumnRun& run, int64_t, const Scalar* rows_of_tile) {
      prefetch_run(run, row_panel.rows, rows_of_tile, output.row_stride);
    });
  }
  family.function(vectors, count_zero, tile_rows, tile_columns)(tiles, work.counters);
  if (is_scattered) {
    each_run([&](const ColumnRun& run, int64_t tile, Scalar* rows_of_tile) {
      scatter(vectors, run, row_panel.rows, tiles.output + tile * tiles.output_step, tile_columns, rows_of_tile,
              output.row_stride);
    });
  }
}

template <class Scalar>
void Product<Scalar>::run_row_block(const Task<Scalar>& task, int64_t first_panel, int64_t last_panel,
                                    int64_t first_depth, int64_t depth, Workspace<Scalar>& work) const {
  const int64_t column_panels = static_cast<int64_t>(work.block.panels.size());
  const bool is_last = first_depth + depth == task.last_depth;
  for (int64_t column_panel = 0; column_panel < column_panels; ++column_panel) {
    Tiles<Scalar> tiles = column_side(task, column_panel, first_depth, depth, work);
    // Whether their outputs are not a part of the product's.
    const bool is_detached = vectors == Vectors::kRows || !work.block.panels[column_panel].contiguous;
    const bool one_by_one = is_detached && is_one_depth_block();
    for (int64_t row_panel = first_panel; row_panel < last_panel; row_panel += tiles.count) {
      tiles.count = one_by_one ? 1 : std::min(last_panel, rows.panel(row_panel).alike_end) - row_panel;
      run_tiles(task, row_panel, column_panel, is_detached, is_last, tiles, work);
    }
  }
}

template <class Scalar>
void Product<Scalar>::run_task(const Task<Scalar>& task, Workspace<Scalar>& work) const {
  if (work.block.index != task.column_block) {
    work.block.clear_layout();
    columns.layout(task.column_block, work.block);
    work.block.index = task.column_block;
  }
  const int64_t depth_block = columns.depth_block();
  for (int64_t first_depth = task.first_depth; first_depth < task.last_depth; first_depth += depth_block) {
    const int64_t depth = std::min(depth_block, task.last_depth - first_depth);
    columns.pack(task.group, first_depth, depth, count_zero, work.block);
    for (int64_t panel = task.first_panel; panel < task.last_panel; panel += row_block_panels) {
      const int64_t last = std::min(panel + row_block_panels, task.last_panel);
      rows.pack(task.group, panel, last, first_depth, depth, count_zero, work.rows);
      run_row_block(task, panel, last, first_depth, depth, work);
    }
  }
}

// Has the first range of depth's outputs be the sums of all ranges' outputs. Returns how many additions that took.
template <class Scalar>
int64_t add_ranges(const Scalar* others, int64_t ranges, const ProductOutput<Scalar>& output) {
  constexpr int64_t kAtOnce = 4096 / sizeof(Scalar);  // elements that stay in L1 between one addition and the next
  int64_t additions = 0;
#pragma omp parallel for reduction(+ : additions)
  for (int64_t first = 0; first < output.size; first += kAtOnce) {
    const int64_t last = std::min(first + kAtOnce, output.size);
    Tally added;
    for (int64_t range = 1; range < ranges; ++range) {
      const Scalar* const sums = others + (range - 1) * output.size;
      for (int64_t i = first; i < last; ++i, added += 1) output.values[i] += sums[i];
    }
    additions += added;
  }
  return additions;
}

// Half of a core's L2 for a block of columns; of that of most CPUs, where the system does not tell.
int64_t column_block_bytes() {
  constexpr int64_t kUsualL2Bytes = 512 * 1024;
#ifdef _SC_LEVEL2_CACHE_SIZE
  static const int64_t l2_bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  if (l2_bytes > 0) return l2_bytes / 2;
#endif
  return kUsualL2Bytes / 2;
}

// For any number of threads the same, so that sums are rounded alike.
int64_t choose_depth_ranges(const ProductShape& shape) {
  if (shape.outputs > kFewOutputs) return 1;
  const int64_t ranges = std::min(ceil_div(shape.depth, shape.depth_block), shape.depth / kMinRangeDepth);
  return std::clamp<int64_t>(ranges, 1, kMaxDepthRanges);
}

}  // namespace

int64_t max_block_panels(const PanelWidth& width, int64_t scalar_bytes) {
  return std::max<int64_t>(1, column_block_bytes() / (width.max * max_depth_block(width) * scalar_bytes));
}

TaskGrid plan_tasks(const ProductShape& shape, int64_t max_block_panels, int64_t packing_cost, int64_t threads) {
  const int64_t depth_ranges = choose_depth_ranges(shape);
  const auto finish_time = [&](const TaskGrid& grid) {
    const int64_t task = (ceil_div(shape.row_panels, grid.row_ranges) + packing_cost) *
                         ceil_div(shape.column_panels, grid.column_blocks);
    return task * ceil_div(shape.groups * grid.column_blocks * grid.row_ranges * depth_ranges, threads);
  };
  const int64_t fewest_blocks = ceil_div(shape.column_panels, max_block_panels);
  TaskGrid best{fewest_blocks, 1, depth_ranges};
  for (int64_t blocks = fewest_blocks; blocks <= std::min(fewest_blocks + 2 * threads, shape.column_panels); ++blocks) {
    for (int64_t ranges = 1; ranges <= std::min(threads, shape.row_panels); ++ranges) {
      const TaskGrid grid{blocks, ranges, depth_ranges};
      if (finish_time(grid) < finish_time(best)) best = grid;
    }
  }
  return best;
}

template <class Scalar>
void multiply(const TileFamily<Scalar>& family, Vectors vectors, const RowPanels<Scalar>& rows,
              const ColumnSource<Scalar>& columns, const TaskGrid& grid, const ProductOutput<Scalar>& output,
              bool count_zero, Counters& counters) {
  const int64_t panel_bytes = columns.depth_block() * rows.max_panel_rows() * int64_t{sizeof(Scalar)};
  const int64_t row_block_panels = std::clamp<int64_t>(kRowBlockBytes / panel_bytes, 1, rows.panel_count());
  const Partition row_ranges{rows.panel_count(), grid.row_ranges};
  const Partition depth_ranges{ceil_div(rows.depth(), columns.depth_block()), grid.depth_ranges};
  const int64_t task_depth = depth_ranges.length(0) * columns.depth_block();
  const Product<Scalar> product{family, vectors, rows, columns, row_block_panels, task_depth, count_zero};
  const int64_t tasks = columns.block_count() * rows.groups() * grid.depth_ranges * grid.row_ranges;
  const int threads = static_cast<int>(std::clamp<int64_t>(tasks, 1, omp_get_max_threads()));

  std::vector<Workspace<Scalar>> workspaces;  // allocated out here: an exception must not leave the parallel region
  workspaces.reserve(threads);
  const int64_t tiles = product.detached_tiles(columns.limits().panels, row_ranges.length(0));
  for (int i = 0; i < threads; ++i) {
    workspaces.emplace_back(columns.limits(), columns.depth_block(), count_zero, row_block_panels,
                            rows.max_panel_rows(), tiles, product.tile_elements());
  }

  const AlignedArray<Scalar> other_sums((grid.depth_ranges - 1) * output.size);
  const auto output_of = [&](int64_t depth_range) {
    if (depth_range == 0) return output;
    Scalar* const sums = other_sums.data() + (depth_range - 1) * output.size;
    return ProductOutput<Scalar>{Start::kNothing, nullptr, sums, output.row_stride, output.size, output.products};
  };

  // Tasks are handed out in chunks, small enough that a thread that is held up leaves work to the others. Those of one
  // column block follow each other, so that a thread seldom has to lay out another one.
  const int64_t chunk = std::max<int64_t>(1, tasks / (16 * threads));
#pragma omp parallel for num_threads(threads) schedule(dynamic, chunk)
  for (int64_t task = 0; task < tasks; ++task) {
    const int64_t row_range = task % grid.row_ranges;
    const int64_t depth_range = task / grid.row_ranges % grid.depth_ranges;
    const int64_t group = task / grid.row_ranges / grid.depth_ranges % rows.groups();
    const int64_t column_block = task / grid.row_ranges / grid.depth_ranges / rows.groups();
    const int64_t first_panel = row_ranges.begin(row_range);
    const int64_t first_depth = depth_ranges.begin(depth_range) * columns.depth_block();
    const int64_t last_depth = first_depth + depth_ranges.length(depth_range) * columns.depth_block();
    product.run_task({column_block, group, first_panel, first_panel + row_ranges.length(row_range), first_depth,
                      std::min(last_depth, rows.depth()), output_of(depth_range)},
                     workspaces[omp_get_thread_num()]);
  }
  for (const Workspace<Scalar>& work : workspaces) counters += work.counters;
  if (grid.depth_ranges > 1) counters.add += add_ranges(other_sums.data(), grid.depth_ranges, output);
}

template void multiply(const TileFamily<float>&, Vectors, const RowPanels<float>&, const ColumnSource<float>&,
                       const TaskGrid&, const ProductOutput<float>&, bool, Counters&);
template void multiply(const TileFamily<double>&, Vectors, const RowPanels<double>&, const ColumnSource<double>&,
                       const TaskGrid&, const ProductOutput<double>&, bool, Counters&);

}  // namespace flopcuda::cpu
