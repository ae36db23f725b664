// The vocabulary of PTX that every stage shares: scalar types, state spaces, rounding modes, comparisons.
#pragma once

#include <cstdint>
#include <string_view>

namespace flopcuda::ptxvm {

inline constexpr int kLanes = 32;
inline constexpr uint32_t kAllLanes = 0xffffffffu;

enum class Type : uint8_t {
  kNone,
  kPred,
  kB8,
  kB16,
  kB32,
  kB64,
  kB128,
  kU8,
  kU16,
  kU32,
  kU64,
  kS8,
  kS16,
  kS32,
  kS64,
  kF16,
  kBF16,
  kTF32,
  kF32,
  kF64,
  kF16x2,
  kBF16x2,
  kF32x2,
  kU16x2,
  kS16x2,
  kE4M3x2,
  kE5M2x2,
  kU4,
  kS4,
  kB1,
  kE4M3,
  kE5M2,
};

enum class Space : uint8_t { kGeneric, kRegister, kGlobal, kShared, kLocal, kConst, kParam };

// kNearest is the default of every arithmetic instruction; kAway is .rna: to nearest, ties away from zero.
enum class Rounding : uint8_t { kNearest, kZero, kDown, kUp, kAway };

enum class Compare : uint8_t {
  kEq,
  kNe,
  kLt,
  kLe,
  kGt,
  kGe,  // ordered
  kEqu,
  kNeu,
  kLtu,
  kLeu,
  kGtu,
  kGeu,  // or unordered
  kNum,
  kNan,
};

constexpr int64_t align_up(int64_t value, int64_t align) { return (value + align - 1) / align * align; }

// Bytes of one register of this type. Predicates are one 32-lane mask and have no bytes of their own.
constexpr int size_of(Type type) {
  switch (type) {
    case Type::kNone:
    case Type::kPred:
      return 0;
    case Type::kB8:
    case Type::kU8:
    case Type::kS8:
    case Type::kU4:
    case Type::kS4:
    case Type::kB1:
    case Type::kE4M3:
    case Type::kE5M2:
      return 1;
    case Type::kB16:
    case Type::kU16:
    case Type::kS16:
    case Type::kF16:
    case Type::kBF16:
    case Type::kE4M3x2:
    case Type::kE5M2x2:
      return 2;
    case Type::kB64:
    case Type::kU64:
    case Type::kS64:
    case Type::kF64:
    case Type::kF32x2:
      return 8;
    case Type::kB128:
      return 16;
    default:
      return 4;
  }
}

constexpr bool is_signed(Type type) { return type >= Type::kS8 && type <= Type::kS64; }
constexpr bool is_unsigned(Type type) { return type >= Type::kU8 && type <= Type::kU64; }
constexpr bool is_integer(Type type) { return is_signed(type) || is_unsigned(type); }
constexpr bool is_untyped(Type type) { return type >= Type::kB8 && type <= Type::kB128; }
constexpr bool is_float(Type type) { return type >= Type::kF16 && type <= Type::kF64; }
// Of variables and registers; the others, such as .bf16 or .u16x2, are of instructions only.
constexpr bool is_storable(Type type) {
  return is_integer(type) || is_untyped(type) || type == Type::kF16 || type == Type::kF16x2 || type == Type::kF32 ||
         type == Type::kF64;
}

// The integer type of so many bytes, of an element in memory or of a register; kNone of other sizes.
constexpr Type integer_of(int size, bool with_sign = false) {
  switch (size) {
    case 1:
      return with_sign ? Type::kS8 : Type::kU8;
    case 2:
      return with_sign ? Type::kS16 : Type::kU16;
    case 4:
      return with_sign ? Type::kS32 : Type::kU32;
    case 8:
      return with_sign ? Type::kS64 : Type::kU64;
    default:
      return Type::kNone;
  }
}

// The name without its dot ("f32"); Type::kNone for a name that is no type.
Type type_named(std::string_view name);
std::string_view name_of(Type type);

}  // namespace flopcuda::ptxvm
