// Where kept panels lie, and how a changed weight is noticed.
#include "kept_weight.h"

#include <cstring>
#include <utility>

namespace flopcuda::cpu {
namespace {

// Another column in every row, so that no pattern of changes escapes for long. Changes that autograd sees are noticed
// by the weight's version already; this is for those through tensor.data or a numpy view.
template <class Scalar>
Scalar sample(const PackedLayout& layout, const Scalar* source, int64_t row) {
  constexpr uint64_t kGoldenRatio = 0x9E3779B9;
  const uint64_t fraction = static_cast<uint64_t>(row) * kGoldenRatio & 0xFFFFFFFF;  // of 2^32
  return source[row * layout.depth + static_cast<int64_t>(fraction * static_cast<uint64_t>(layout.depth) >> 32)];
}

template <class Scalar>
int64_t bytes_of(const SharedMatrix<Scalar>& packed) {
  return packed ? packed->bytes() : 0;
}

}  // namespace

bool PackedLayout::operator==(const PackedLayout& other) const {
  const auto values = [](const PackedLayout& layout) {
    return std::make_tuple(layout.groups, layout.rows, layout.depth, layout.depth_block, layout.width.step,
                           layout.width.max);
  };
  return values(*this) == values(other);
}

template <class Scalar>
PackedMatrix<Scalar>::PackedMatrix(const PackedLayout& layout)
    : layout_(layout), values_(panel_count() * panel_size()) {}

template <class Scalar>
PackedMatrix<Scalar>::PackedMatrix(const PackedLayout& layout, const Scalar* source) : PackedMatrix(layout) {
  for (int64_t row = 0; row < layout.groups * layout.rows; ++row) samples_.push_back(sample(layout, source, row));
}

template <class Scalar>
int64_t PackedMatrix<Scalar>::panel_count() const {
  return layout_.groups * ceil_div(layout_.depth, layout_.depth_block) * panels_per_block();
}

template <class Scalar>
Scalar* PackedMatrix<Scalar>::panel(int64_t group, int64_t first_depth, int64_t index) const {
  const int64_t block = group * ceil_div(layout_.depth, layout_.depth_block) + first_depth / layout_.depth_block;
  return values_.data() + (block * panels_per_block() + index) * panel_size();
}

template <class Scalar>
int64_t PackedMatrix<Scalar>::bytes() const {
  return panel_count() * panel_size() * int64_t{sizeof(Scalar)};
}

template <class Scalar>
bool PackedMatrix<Scalar>::is_of(const PackedLayout& layout, const Scalar* source) const {
  if (!(layout == layout_)) return false;
  for (int64_t row = 0; row < layout.groups * layout.rows; ++row) {
    const Scalar now = sample(layout, source, row);
    if (std::memcmp(&samples_[row], &now, sizeof(now)) != 0) return false;  // any bits, as those of pairs (pairs.h) are
  }
  return true;
}

template <class Scalar>
SharedMatrix<Scalar> KeptWeight::find(const PackedLayout& layout, const Scalar* source) const {
  SharedMatrix<Scalar> packed;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    packed = std::get<SharedMatrix<Scalar>>(packed_);
  }
  return packed && packed->is_of(layout, source) ? packed : nullptr;
}

template <class Scalar>
void KeptWeight::keep(SharedMatrix<Scalar> packed) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::get<SharedMatrix<Scalar>>(packed_) = std::move(packed);
}

int64_t KeptWeight::bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return bytes_of(std::get<0>(packed_)) + bytes_of(std::get<1>(packed_));
}

template class PackedMatrix<float>;
template class PackedMatrix<double>;
template SharedMatrix<float> KeptWeight::find(const PackedLayout&, const float*) const;
template SharedMatrix<double> KeptWeight::find(const PackedLayout&, const double*) const;
template void KeptWeight::keep(SharedMatrix<float>);
template void KeptWeight::keep(SharedMatrix<double>);

}  // namespace flopcuda::cpu
