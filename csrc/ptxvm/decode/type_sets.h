// Sets of types that instructions take, as masks.
#pragma once

#include <cstdint>

#include "types.h"

namespace flopcuda::ptxvm {

constexpr uint64_t bit(Type type) { return uint64_t{1} << static_cast<int>(type); }

constexpr uint64_t kInt16 = bit(Type::kU16) | bit(Type::kS16);
constexpr uint64_t kInt32 = bit(Type::kU32) | bit(Type::kS32);
constexpr uint64_t kInt64 = bit(Type::kU64) | bit(Type::kS64);
constexpr uint64_t kIntegers = kInt16 | kInt32 | kInt64;
constexpr uint64_t kSigned = bit(Type::kS16) | bit(Type::kS32) | bit(Type::kS64);
constexpr uint64_t kBits32Or64 = bit(Type::kB32) | bit(Type::kB64);
constexpr uint64_t kBits = kBits32Or64 | bit(Type::kB16);
constexpr uint64_t kF32 = bit(Type::kF32);
constexpr uint64_t kF64 = bit(Type::kF64);
constexpr uint64_t kHalf = bit(Type::kF16) | bit(Type::kF16x2);
constexpr uint64_t kBfloat = bit(Type::kBF16) | bit(Type::kBF16x2);
constexpr uint64_t kPacked = bit(Type::kU16x2) | bit(Type::kS16x2);
constexpr uint64_t kF32x2Only = bit(Type::kF32x2);

}  // namespace flopcuda::ptxvm
