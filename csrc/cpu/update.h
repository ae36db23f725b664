// Where an update of a tile finds the columns of the product, and how many of them are padding. One word, so that the
// micro-kernel loads both at once; and the sum of words is the sum of their padding, in its upper half, as long as that
// of the offsets stays in the lower one.
//
// In an unnamed namespace, as tile_kernel.h says.
#pragma once

#include <cstdint>

namespace flopcuda::cpu {
namespace {

using Update = uint64_t;

constexpr int64_t kMaxSummedUpdates = 512;
constexpr int64_t kMaxOffset = (int64_t{1} << 32) / kMaxSummedUpdates - 1;

constexpr Update make_update(int64_t offset, int64_t padding) {
  return static_cast<Update>(padding) << 32 | static_cast<Update>(offset);
}
constexpr int64_t offset_of(Update update) { return static_cast<uint32_t>(update); }
constexpr int64_t padding_of(Update update) { return static_cast<int64_t>(update >> 32); }

}  // namespace
}  // namespace flopcuda::cpu
