// Book-keeping of a block's panels and runs.
#include "column_source.h"

#include <algorithm>
#include <stdexcept>

namespace flopcuda::cpu {
namespace {

// So many panels before another one are looked at for the same padding: those of a row or of a small image.
constexpr int64_t kPanelsCompared = 16;

}  // namespace

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
  panel.valid_columns += run.length;
  panel.run_count += 1;
  runs.push_back(run);
}

void ColumnLayout::finish_panel(int64_t columns) {
  ColumnPanel& panel = panels.back();
  panel.columns = columns;
  panel.contiguous = panel.contiguous && panel.valid_columns == columns;
  panel.update_list = choose_update_list();
  update_lists_ = std::max(update_lists_, panel.update_list + 1);
}

bool ColumnLayout::are_padded_alike(const ColumnPanel& a, const ColumnPanel& b) const {
  if (a.run_count != b.run_count) return false;
  const ColumnRun* const of_a = runs.data() + a.first_run;
  return std::equal(of_a, of_a + a.run_count, runs.data() + b.first_run, [](const ColumnRun& a, const ColumnRun& b) {
    const bool rows_agree = a.padding != Padding::kAnywhere || (a.y == b.y && a.z == b.z);
    return a.padding == b.padding && a.x == b.x && a.length == b.length && rows_agree;
  });
}

// Of the last panel.
int64_t ColumnLayout::choose_update_list() const {
  const ColumnPanel& last = panels.back();
  const auto is_padded = [](const ColumnRun& run) { return run.padding != Padding::kNone; };
  if (std::none_of(runs.begin() + last.first_run, runs.end(), is_padded)) return 0;
  const auto first = panels.rbegin() + 1, end = first + std::min<int64_t>(kPanelsCompared, panels.rend() - first);
  const auto alike = std::find_if(first, end, [&](const ColumnPanel& panel) { return are_padded_alike(panel, last); });
  return alike == end ? update_lists_ : alike->update_list;
}

}  // namespace flopcuda::cpu
