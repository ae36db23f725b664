// A weight that stays packed from one call to the next: where few columns use it, packing takes a good part of a
// layer's time.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "buffer.h"
#include "partition.h"

namespace flopcuda::cpu {

// Measured: packing a weight takes as long as multiplying it by 20 to 40 columns. Small ones are not worth the while.
constexpr bool is_worth_keeping(int64_t weights, int64_t columns) { return weights >= 16 * 1024 && columns <= 1024; }

// How the rows of a matrix, [groups * rows, depth], are packed.
struct PackedLayout {
  int64_t groups, rows, depth;
  int64_t depth_block;
  PanelWidth width;

  bool operator==(const PackedLayout& other) const;
};

// All panels of a matrix: [group][depth block][panel][depth_block][width.max].
template <class Scalar>
class PackedMatrix {
 public:
  // Leaves the panels to be filled in.
  explicit PackedMatrix(const PackedLayout& layout);

  // Likewise, of the dense matrix at `source`.
  PackedMatrix(const PackedLayout& layout, const Scalar* source);

  Scalar* panel(int64_t group, int64_t first_depth, int64_t index) const;
  int64_t panel_size() const { return layout_.depth_block * layout_.width.max; }
  int64_t bytes() const;

  // Whether the matrix at `source` has this layout and, as far as one element of each row tells, the values it had.
  bool is_of(const PackedLayout& layout, const Scalar* source) const;

 private:
  int64_t panels_per_block() const { return ceil_div(layout_.rows, layout_.width.max); }
  int64_t panel_count() const;

  PackedLayout layout_;
  std::vector<Scalar> samples_;
  AlignedArray<Scalar> values_;
};

template <class Scalar>
using SharedMatrix = std::shared_ptr<const PackedMatrix<Scalar>>;

// What is kept of one weight: its panels in the layout that was used last. Calls may come from any thread.
class KeptWeight {
 public:
  // Null if there are none of this layout and these values.
  template <class Scalar>
  SharedMatrix<Scalar> find(const PackedLayout& layout, const Scalar* source) const;

  template <class Scalar>
  void keep(SharedMatrix<Scalar> packed);

  int64_t bytes() const;

 private:
  mutable std::mutex mutex_;
  std::tuple<SharedMatrix<float>, SharedMatrix<double>> packed_;
};

}  // namespace flopcuda::cpu
