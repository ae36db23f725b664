// cvt in every mode, one lane at a time. The common plain conversions have handlers of their own in core.inc.
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "execute/half.h"
#include "execute/handlers.h"
#include "execute/warp.h"

namespace flopcuda::ptxvm {
namespace {

template <class To, class From>
To as(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  std::memcpy(&result, &value, sizeof result);
  return result;
}

uint64_t low_bits(uint64_t bits, int size) { return size >= 8 ? bits : bits & ((uint64_t{1} << (8 * size)) - 1); }

int64_t sign_extend(uint64_t bits, int size) {
  const int shift = 64 - 8 * size;
  return static_cast<int64_t>(bits << shift) >> shift;
}

struct Modes {
  Type to, from;
  Rounding rounding;
  bool to_integral, finite, ftz, sat, relu;

  explicit Modes(const Instruction& in)
      : to(static_cast<Type>(in.offset & 0xff)),
        from(static_cast<Type>(in.offset >> 8 & 0xff)),
        rounding(static_cast<Rounding>(in.u[0])),
        to_integral(in.u[1] & 1),
        finite(in.u[1] & 2),
        ftz(in.variant & kFtz),
        sat(in.variant & kSat),
        relu(in.variant & kRelu) {}
};

uint32_t flush32(uint32_t bits) { return bits & 0x7f800000u ? bits : bits & 0x80000000u; }

double read_float(uint64_t bits, const Modes& modes) {
  switch (modes.from) {
    case Type::kF16:
      return to_double(static_cast<uint16_t>(bits), kFloat16);
    case Type::kBF16:
      return to_double(static_cast<uint16_t>(bits), kBfloat16);
    case Type::kF32:
      return as<float>(modes.ftz ? flush32(static_cast<uint32_t>(bits)) : static_cast<uint32_t>(bits));
    default:
      return as<double>(bits);
  }
}

double integral(double value, Rounding rounding) {
  switch (rounding) {
    case Rounding::kZero:
      return std::trunc(value);
    case Rounding::kDown:
      return std::floor(value);
    case Rounding::kUp:
      return std::ceil(value);
    default:
      return std::nearbyint(value);
  }
}

// What NaN becomes: from or to 64 bits the number of which only the highest bit is set, otherwise 0.
uint64_t integer_of_nan(const Modes& modes) {
  const int bits = 8 * size_of(modes.to);
  if (modes.from != Type::kF64 && bits != 64) return 0;
  const uint64_t highest = uint64_t{1} << (bits - 1);
  return is_signed(modes.to) ? 0 - highest : highest;
}

// Out of range gives the nearest value of the type.
uint64_t float_to_integer(double value, const Modes& modes) {
  if (value != value) return integer_of_nan(modes);
  const double whole = integral(value, modes.rounding);
  const int bits = 8 * size_of(modes.to);
  if (is_signed(modes.to)) {
    const double limit = std::ldexp(1.0, bits - 1);
    if (whole >= limit) return static_cast<uint64_t>((int64_t{1} << (bits - 2)) - 1) * 2 + 1;
    if (whole < -limit) return static_cast<uint64_t>(-static_cast<int64_t>(std::ldexp(1.0, bits - 2)) * 2);
    return static_cast<uint64_t>(static_cast<int64_t>(whole));
  }
  if (whole <= 0) return 0;
  if (whole >= std::ldexp(1.0, bits)) return low_bits(~uint64_t{0}, size_of(modes.to));
  return static_cast<uint64_t>(whole);
}

uint64_t integer_to_integer(uint64_t bits, const Modes& modes) {
  const int size = size_of(modes.from);
  const bool negative = is_signed(modes.from) && sign_extend(bits, size) < 0;
  uint64_t value = is_signed(modes.from) ? static_cast<uint64_t>(sign_extend(bits, size)) : low_bits(bits, size);
  if (!modes.sat) return value;
  const int to_bits = 8 * size_of(modes.to);
  const uint64_t highest =
      is_signed(modes.to) ? (uint64_t{1} << (to_bits - 1)) - 1 : low_bits(~uint64_t{0}, size_of(modes.to));
  if (!negative) return value > highest ? highest : value;
  if (!is_signed(modes.to)) return 0;
  const int64_t lowest = -static_cast<int64_t>(highest) - 1;
  return static_cast<int64_t>(value) < lowest ? static_cast<uint64_t>(lowest) : value;
}

// An integer as a double that rounds to every narrower format as the integer itself would: bits that do not fit are
// gathered in the lowest one.
double to_odd_double(uint64_t magnitude) {
  int shift = 0;
  while (magnitude >> 53) {
    magnitude = magnitude >> 1 | (magnitude & 1);
    ++shift;
  }
  return std::ldexp(static_cast<double>(magnitude), shift);
}

double integer_to_double(uint64_t bits, const Modes& modes) {
  const int64_t with_sign = sign_extend(bits, size_of(modes.from));
  if (!is_signed(modes.from)) return to_odd_double(low_bits(bits, size_of(modes.from)));
  return with_sign < 0 ? -to_odd_double(uint64_t{0} - static_cast<uint64_t>(with_sign))
                       : to_odd_double(static_cast<uint64_t>(with_sign));
}

int host_rounding(Rounding rounding) {
  switch (rounding) {
    case Rounding::kZero:
      return FE_TOWARDZERO;
    case Rounding::kDown:
      return FE_DOWNWARD;
    case Rounding::kUp:
      return FE_UPWARD;
    default:
      return FE_TONEAREST;
  }
}

uint64_t integer_to_f64(uint64_t bits, const Modes& modes) {
  std::fesetround(host_rounding(modes.rounding));
  volatile int64_t with_sign = sign_extend(bits, size_of(modes.from));
  volatile uint64_t without = low_bits(bits, size_of(modes.from));
  volatile double result;
  if (is_signed(modes.from))
    result = static_cast<double>(with_sign);
  else
    result = static_cast<double>(without);
  std::fesetround(FE_TONEAREST);
  return as<uint64_t>(static_cast<double>(result));
}

double clamp(double value, const Modes& modes) {
  if (modes.sat) return value > 0 ? (value < 1 ? value : 1.0) : 0.0;
  if (modes.relu && value <= 0) return 0.0;
  return value;
}

uint64_t to_float(double value, const Modes& modes) {
  const double clamped = clamp(value, modes);
  switch (modes.to) {
    case Type::kF16:
      return round_to(clamped, kFloat16, modes.rounding, modes.finite);
    case Type::kBF16:
      return round_to(clamped, kBfloat16, modes.rounding, modes.finite);
    case Type::kTF32: {
      const uint32_t bits = round_to(clamped, kTfloat32, modes.rounding, modes.finite);
      return clamped != clamped ? 0x7fffffffu : bits << 13;
    }
    case Type::kF32: {
      const uint32_t bits = round_to(clamped, kSingle, modes.rounding, modes.finite);
      return modes.ftz ? flush32(bits) : bits;
    }
    default:
      return as<uint64_t>(clamped);
  }
}

uint64_t convert(uint64_t bits, const Modes& modes) {
  const bool from_integer = is_integer(modes.from);
  if (is_integer(modes.to))
    return from_integer ? integer_to_integer(bits, modes) : float_to_integer(read_float(bits, modes), modes);
  if (from_integer) {
    if (modes.to == Type::kF64) return integer_to_f64(bits, modes);
    return to_float(integer_to_double(bits, modes), modes);
  }
  Modes exact = modes;
  double value = read_float(bits, modes);
  if (modes.to_integral) {
    value = integral(value, modes.rounding);
    exact.rounding = Rounding::kNearest;
  }
  return to_float(value, exact);
}

uint64_t read_register(const char* row, int size, int lane) {
  switch (size) {
    case 2:
      return reinterpret_cast<const uint16_t*>(row)[lane];
    case 4:
      return reinterpret_cast<const uint32_t*>(row)[lane];
    default:
      return reinterpret_cast<const uint64_t*>(row)[lane];
  }
}

void write_register(char* row, int size, int lane, uint64_t value) {
  switch (size) {
    case 2:
      reinterpret_cast<uint16_t*>(row)[lane] = static_cast<uint16_t>(value);
      break;
    case 4:
      reinterpret_cast<uint32_t*>(row)[lane] = static_cast<uint32_t>(value);
      break;
    default:
      reinterpret_cast<uint64_t*>(row)[lane] = value;
  }
}

// A result narrower than its register fills it: with its sign when it has one.
uint64_t extend(uint64_t value, Type type) {
  const int size = size_of(type);
  return is_signed(type) ? static_cast<uint64_t>(sign_extend(value, size)) : low_bits(value, size);
}

void run_convert(Warp& warp, const Instruction& in) {
  const Modes modes(in);
  const char* source = warp.at(in.a);
  char* result = warp.at(in.dst);
  for (uint32_t rest = warp.mask; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    const uint64_t value = convert(read_register(source, in.u[3], lane), modes);
    write_register(result, in.u[2], lane, extend(value, modes.to));
  }
}

const HalfFormat& pair_format(Type type) {
  switch (type) {
    case Type::kBF16x2:
      return kBfloat16;
    case Type::kE4M3x2:
      return kE4M3;
    case Type::kE5M2x2:
      return kE5M2;
    default:
      return kFloat16;
  }
}

void run_convert_pair(Warp& warp, const Instruction& in) {
  const Modes modes(in);
  const HalfFormat& to = pair_format(modes.to);
  const int to_shift = to.exponent_bits + to.mantissa_bits + 1;
  const bool finite = in.u[1];
  const auto round = [&](double value) {
    return round_to(modes.relu && value <= 0 ? 0.0 : value, to, modes.rounding, finite);
  };
  for (uint32_t rest = warp.mask; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    double high, low;
    if (modes.from == Type::kF32) {
      high = warp.row<float>(in.a)[lane];
      low = warp.row<float>(in.b)[lane];
    } else {
      const HalfFormat& from = pair_format(modes.from);
      const int shift = from.exponent_bits + from.mantissa_bits + 1;
      const uint32_t bits = shift == 8 ? warp.row<uint16_t>(in.a)[lane] : warp.row<uint32_t>(in.a)[lane];
      low = to_double(bits & ((1u << shift) - 1), from);
      high = to_double(bits >> shift, from);
    }
    const uint32_t result = round(high) << to_shift | round(low);
    if (to_shift == 8)
      warp.row<uint16_t>(in.dst)[lane] = static_cast<uint16_t>(result);
    else
      warp.row<uint32_t>(in.dst)[lane] = result;
  }
}

}  // namespace

void register_convert(HandlerTable& table) {
  table.add({Op::kConvert}, {run_convert, run_convert});
  table.add({Op::kConvertPack2}, {run_convert_pair, run_convert_pair});
}

}  // namespace flopcuda::ptxvm
