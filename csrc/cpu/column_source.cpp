// Book-keeping of a block's panels and runs.
#include "column_source.h"

#include <stdexcept>

namespace flopcuda::cpu {

ColumnLayout::ColumnLayout(const BlockLimits& limits, int64_t depth_block)
    : value_offsets(depth_block),
      depth_block_(depth_block),
      updates_((1 + limits.padded_panels) * depth_block),
      nonzero_columns_(limits.panels * depth_block) {
  if (limits.values > kMaxOffset) throw std::length_error("a block of columns is too large for its updates");
  panels.reserve(limits.panels);
  runs.reserve(limits.runs);
  copies.reserve(3 * limits.runs + limits.panels);
}

void ColumnLayout::clear_layout() {
  panels.clear();
  runs.clear();
  update_lists_ = 1;
}

void ColumnLayout::add_panel(int64_t values_offset, int64_t vector_step) {
  panels.push_back({values_offset, vector_step, 0, 0, static_cast<int64_t>(runs.size()), 0, 0, true});
}

void ColumnLayout::add_run(const ColumnRun& run) {
  ColumnPanel& panel = panels.back();
  const int64_t expected_offset = runs.empty() ? 0 : runs.back().output_offset + runs.back().length;
  if (run.panel_column != panel.valid_columns) panel.contiguous = false;
  if (panel.run_count > 0 && run.output_offset != expected_offset) panel.contiguous = false;
  if (run.is_padded && panel.update_list == 0) panel.update_list = update_lists_++;
  panel.valid_columns += run.length;
  panel.run_count += 1;
  runs.push_back(run);
}

void ColumnLayout::finish_panel(int64_t columns) {
  ColumnPanel& panel = panels.back();
  panel.columns = columns;
  panel.contiguous = panel.contiguous && panel.valid_columns == columns;
}

}  // namespace flopcuda::cpu
