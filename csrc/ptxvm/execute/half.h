// Floating-point formats narrower than double, in software: exact to double, and from double with every rounding.
//
// All are of the IEEE kind but e4m3, which has no infinity. A sum or product of two halves is exact in double or so
// close that one rounding more does no harm; fused operations round to odd first, see fma_to_odd().
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "types.h"

namespace flopcuda::ptxvm {

struct HalfFormat {
  int exponent_bits;
  int mantissa_bits;
  bool has_infinity;
  uint32_t nan;

  constexpr int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  constexpr uint32_t infinity() const { return ((1u << exponent_bits) - 1) << mantissa_bits; }
  constexpr uint32_t largest() const { return has_infinity ? infinity() - 1 : nan - 1; }
  constexpr uint32_t sign() const { return 1u << (exponent_bits + mantissa_bits); }
};

inline constexpr HalfFormat kFloat16{5, 10, true, 0x7fff};
inline constexpr HalfFormat kBfloat16{8, 7, true, 0x7fff};
inline constexpr HalfFormat kTfloat32{8, 10, true, 0x3ffff};
inline constexpr HalfFormat kE4M3{4, 3, false, 0x7f};
inline constexpr HalfFormat kE5M2{5, 2, true, 0x7f};
inline constexpr HalfFormat kSingle{8, 23, true, 0x7fffffff};

inline double to_double(uint32_t bits, const HalfFormat& format) {
  const uint32_t magnitude = bits & (format.sign() - 1);
  const bool negative = bits & format.sign();
  if (format.has_infinity ? magnitude > format.infinity() : magnitude == format.nan) return std::nan("");
  const uint32_t exponent = magnitude >> format.mantissa_bits;
  const uint32_t mantissa = magnitude & ((1u << format.mantissa_bits) - 1);
  double value;
  if (format.has_infinity && magnitude == format.infinity()) {
    value = HUGE_VAL;
  } else if (exponent == 0) {
    value = std::ldexp(static_cast<double>(mantissa), 1 - format.bias() - format.mantissa_bits);
  } else {
    const uint64_t wide = (static_cast<uint64_t>(exponent) + 1023 - static_cast<uint64_t>(format.bias())) << 52 |
                          static_cast<uint64_t>(mantissa) << (52 - format.mantissa_bits);
    std::memcpy(&value, &wide, sizeof value);
  }
  return negative ? -value : value;
}

// `finite`: overflow gives the largest finite value instead of infinity.
inline uint32_t round_to(double value, const HalfFormat& format, Rounding rounding, bool finite = false) {
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = bits >> 63 ? format.sign() : 0;
  if (value != value) return format.nan;
  const int raw_exponent = static_cast<int>(bits >> 52 & 0x7ff);
  uint64_t significand = bits & ((uint64_t{1} << 52) - 1);
  if (raw_exponent == 0x7ff) return sign | (finite || !format.has_infinity ? format.largest() : format.infinity());
  if (raw_exponent) significand |= uint64_t{1} << 52;
  if (significand == 0) return sign;
  const int exponent = (raw_exponent ? raw_exponent : 1) - 1023;
  const int least = 1 - format.bias();
  const int dropped = 52 - format.mantissa_bits + (exponent < least ? least - exponent : 0);
  uint64_t kept = dropped < 64 ? significand >> dropped : 0;
  const uint64_t rest = dropped < 64 ? significand & ((uint64_t{1} << dropped) - 1) : significand;
  const uint64_t tie = dropped <= 64 ? uint64_t{1} << (dropped - 1) : 0;  // beyond 64 bits everything is below the tie
  bool up = false;
  switch (rounding) {
    case Rounding::kNearest:
      up = tie && (rest > tie || (rest == tie && (kept & 1)));
      break;
    case Rounding::kAway:
      up = tie && rest >= tie;
      break;
    case Rounding::kZero:
      break;
    case Rounding::kDown:
      up = rest && sign;
      break;
    case Rounding::kUp:
      up = rest && !sign;
      break;
  }
  kept += up;
  uint64_t magnitude = kept;
  if (exponent >= least) {
    magnitude += static_cast<uint64_t>(exponent + format.bias() - 1) << format.mantissa_bits;
  }
  if (magnitude > format.largest()) {
    const bool to_largest = finite || !format.has_infinity || rounding == Rounding::kZero ||
                            (rounding == Rounding::kDown && !sign) || (rounding == Rounding::kUp && sign);
    magnitude = to_largest ? format.largest() : format.infinity();
  }
  return sign | static_cast<uint32_t>(magnitude);
}

inline uint16_t from_double(double value, const HalfFormat& format) {
  return static_cast<uint16_t>(round_to(value, format, Rounding::kNearest));
}

// a b + c for halves: the product is exact in double; the sum is rounded to odd, so that rounding it to a half
// afterwards gives what one rounding of the exact sum would.
inline double fma_to_odd(double a, double b, double c) {
  const double product = a * b;
  const double sum = product + c;
  if (!std::isfinite(sum)) return sum;
  const double virtual_c = sum - product;
  const double error = (product - (sum - virtual_c)) + (c - virtual_c);
  if (error == 0) return sum;
  uint64_t bits;
  std::memcpy(&bits, &sum, sizeof bits);
  if (bits & 1) return sum;
  bits = (error > 0) == (sum > 0) ? bits + 1 : bits - 1;
  double result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

}  // namespace flopcuda::ptxvm
