// f16 and bf16 arithmetic and comparison, single and in pairs, by way of double.
#include "execute/half.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "execute/handlers.h"
#include "execute/warp.h"

namespace flopcuda::ptxvm {
namespace {
#include "execute/lanes/lanes.inc"

// Properties that select what is done around an operation on halves.
struct HalfModes {
  const HalfFormat& format;
  bool ftz, sat, relu, propagate_nan, xor_sign;

  HalfModes(const Instruction& in, const HalfFormat& format)
      : format(format),
        ftz(in.variant & kFtz),
        sat(in.variant & kSat),
        relu(in.variant & kRelu),
        propagate_nan(in.variant & kPropagateNan),
        xor_sign(in.variant & kXorSign) {}

  uint16_t flush(uint16_t bits) const {
    return ftz && !(bits & format.infinity()) ? static_cast<uint16_t>(bits & format.sign()) : bits;
  }
  double read(uint16_t bits) const { return to_double(flush(bits), format); }
  uint16_t round(double value) const {
    if (relu && value < 0) value = 0;
    uint16_t bits = flush(from_double(value, format));
    if (relu && bits == format.sign()) bits = 0;
    if (sat) bits = value > 0 ? (value < 1 ? bits : from_double(1.0, format)) : uint16_t{0};
    return bits;
  }
};

struct HalfAdd {
  static uint16_t run(const HalfModes& m, uint16_t a, uint16_t b, uint16_t) { return m.round(m.read(a) + m.read(b)); }
};
struct HalfSub {
  static uint16_t run(const HalfModes& m, uint16_t a, uint16_t b, uint16_t) { return m.round(m.read(a) - m.read(b)); }
};
struct HalfMul {
  static uint16_t run(const HalfModes& m, uint16_t a, uint16_t b, uint16_t) { return m.round(m.read(a) * m.read(b)); }
};
struct HalfFma {
  static uint16_t run(const HalfModes& m, uint16_t a, uint16_t b, uint16_t c) {
    return m.round(fma_to_odd(m.read(a), m.read(b), m.read(c)));
  }
};
struct HalfAbs {
  static uint16_t run(const HalfModes& m, uint16_t a, uint16_t, uint16_t) {
    return static_cast<uint16_t>(m.flush(a) & ~m.format.sign());
  }
};
struct HalfNeg {
  static uint16_t run(const HalfModes& m, uint16_t a, uint16_t, uint16_t) {
    return static_cast<uint16_t>(m.flush(a) ^ m.format.sign());
  }
};
struct HalfEx2 {
  static uint16_t run(const HalfModes& m, uint16_t a, uint16_t, uint16_t) { return m.round(std::exp2(m.read(a))); }
};
struct HalfTanh {
  static uint16_t run(const HalfModes& m, uint16_t a, uint16_t, uint16_t) { return m.round(std::tanh(m.read(a))); }
};
template <bool Max>
struct HalfMinMax {
  static uint16_t run(const HalfModes& m, uint16_t x, uint16_t y, uint16_t) {
    const uint32_t sign = (x ^ y) & m.format.sign();
    uint16_t a = m.flush(x), b = m.flush(y);
    if (m.xor_sign) a = static_cast<uint16_t>(a & ~m.format.sign()), b = static_cast<uint16_t>(b & ~m.format.sign());
    const double u = m.read(a), v = m.read(b);
    const uint16_t nan = static_cast<uint16_t>(m.format.nan);
    if (u != u || v != v) {
      if (m.propagate_nan || (u != u && v != v)) return nan;
      return static_cast<uint16_t>((u != u ? b : a) | (m.xor_sign ? sign : 0));
    }
    uint16_t result = (Max ? u > v : u < v) ? a : b;
    if (u == v) result = Max ? a & b : a | b;
    return static_cast<uint16_t>(result | (m.xor_sign ? sign : 0));
  }
};

const HalfFormat& format_of(bool brain) { return brain ? kBfloat16 : kFloat16; }

template <class F, bool Brain>
struct Single16 {
  HalfModes modes;
  explicit Single16(const Instruction& in) : modes(in, format_of(Brain)) {}
  uint16_t operator()(uint16_t a, uint16_t b = 0, uint16_t c = 0) const { return F::run(modes, a, b, c); }
};

template <class F, bool Brain>
struct Pair16 {
  HalfModes modes;
  explicit Pair16(const Instruction& in) : modes(in, format_of(Brain)) {}
  uint32_t operator()(uint32_t a, uint32_t b = 0, uint32_t c = 0) const {
    const auto half = [&](int shift) {
      return F::run(modes, static_cast<uint16_t>(a >> shift), static_cast<uint16_t>(b >> shift),
                    static_cast<uint16_t>(c >> shift));
    };
    return half(0) | static_cast<uint32_t>(half(16)) << 16;
  }
};

template <class F, bool Brain>
void add_half(HandlerTable& t, Op op, int operands, uint8_t variant) {
  using S = Single16<F, Brain>;
  using P = Pair16<F, Brain>;
  using h = uint16_t;
  using p = uint32_t;
  const Type single = Brain ? Type::kBF16 : Type::kF16, pair = Brain ? Type::kBF16x2 : Type::kF16x2;
  t.add({op, single, Type::kNone, variant}, operands == 1   ? unary<S, h, h>()
                                            : operands == 2 ? binary<S, h, h, h>()
                                                            : ternary<S, h, h, h, h>());
  t.add({op, pair, Type::kNone, variant}, operands == 1   ? unary<P, p, p>()
                                          : operands == 2 ? binary<P, p, p, p>()
                                                          : ternary<P, p, p, p, p>());
}

template <bool Brain>
void add_format(HandlerTable& t) {
  for (int flags = 0; flags < 4; ++flags) {
    const uint8_t v = static_cast<uint8_t>((flags & 1 ? kFtz : 0) | (flags & 2 ? kSat : 0));
    add_half<HalfAdd, Brain>(t, Op::kAdd, 2, v);
    add_half<HalfSub, Brain>(t, Op::kSub, 2, v);
    add_half<HalfMul, Brain>(t, Op::kMulLo, 2, v);
    add_half<HalfFma, Brain>(t, Op::kFma, 3, v);
    const uint8_t ftz = flags & 1 ? kFtz : 0;
    add_half<HalfFma, Brain>(t, Op::kFma, 3, static_cast<uint8_t>(ftz | kRelu));
    add_half<HalfAbs, Brain>(t, Op::kAbs, 1, ftz);
    add_half<HalfNeg, Brain>(t, Op::kNeg, 1, ftz);
    add_half<HalfEx2, Brain>(t, Op::kEx2, 1, static_cast<uint8_t>(kApprox | ftz));
    add_half<HalfTanh, Brain>(t, Op::kTanh, 1, kApprox);
    for (int more = 0; more < 4; ++more) {
      const uint8_t variant = static_cast<uint8_t>(ftz | (more & 1 ? kPropagateNan : 0) | (more & 2 ? kXorSign : 0));
      add_half<HalfMinMax<false>, Brain>(t, Op::kMin, 2, variant);
      add_half<HalfMinMax<true>, Brain>(t, Op::kMax, 2, variant);
    }
  }
}

// ---- comparison ----

bool holds(Compare compare, double a, double b) {
  const bool unordered = a != a || b != b;
  switch (compare) {
    case Compare::kEq:
      return a == b;
    case Compare::kNe:
      return !unordered && a != b;
    case Compare::kLt:
      return a < b;
    case Compare::kLe:
      return a <= b;
    case Compare::kGt:
      return a > b;
    case Compare::kGe:
      return a >= b;
    case Compare::kEqu:
      return unordered || a == b;
    case Compare::kNeu:
      return a != b;
    case Compare::kLtu:
      return !(a >= b);
    case Compare::kLeu:
      return !(a > b);
    case Compare::kGtu:
      return !(a <= b);
    case Compare::kGeu:
      return !(a < b);
    case Compare::kNum:
      return !unordered;
    case Compare::kNan:
      return unordered;
  }
  return false;
}

uint32_t combine(Warp& warp, const Instruction& in, uint32_t value) {
  if (in.u[1] == 0) return value;
  const uint32_t other = warp.predicate(in.c) ^ (in.u[2] ? kAllLanes : 0);
  return in.u[1] == 1 ? value & other : in.u[1] == 2 ? value | other : value ^ other;
}

void set_predicate(Warp& warp, Ref ref, uint32_t value) {
  uint32_t& predicate = warp.predicate(ref);
  predicate = (predicate & ~warp.mask) | (value & warp.mask);
}

// The variant of a comparison is not made of Variant bits: bit 5 is ftz.
uint16_t flush(uint16_t bits, const Instruction& in, const HalfFormat& format) {
  return (in.variant & 32) && !(bits & format.infinity()) ? static_cast<uint16_t>(bits & format.sign()) : bits;
}

template <class T, bool Brain>
uint32_t compare_lanes(Warp& warp, const Instruction& in, int shift) {
  const HalfFormat& format = format_of(Brain);
  const T* a = warp.row<T>(in.a);
  const T* b = warp.row<T>(in.b);
  uint32_t result = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    const double x = to_double(flush(static_cast<uint16_t>(a[lane] >> shift), in, format), format);
    const double y = to_double(flush(static_cast<uint16_t>(b[lane] >> shift), in, format), format);
    result |= static_cast<uint32_t>(holds(static_cast<Compare>(in.u[0]), x, y)) << lane;
  }
  return result;
}

template <bool Brain>
void run_setp(Warp& warp, const Instruction& in) {
  const uint32_t value = compare_lanes<uint16_t, Brain>(warp, in, 0);
  const uint32_t first = combine(warp, in, value);
  if (!in.extra->dst.empty()) set_predicate(warp, in.extra->dst[0], combine(warp, in, ~value));
  set_predicate(warp, in.dst, first);
}

// A pair compares half by half: d|q are the results of the lower and the upper half.
template <bool Brain>
void run_setp_pair(Warp& warp, const Instruction& in) {
  const uint32_t low = combine(warp, in, compare_lanes<uint32_t, Brain>(warp, in, 0));
  const uint32_t high = combine(warp, in, compare_lanes<uint32_t, Brain>(warp, in, 16));
  if (!in.extra->dst.empty()) set_predicate(warp, in.extra->dst[0], high);
  set_predicate(warp, in.dst, low);
}

uint32_t set_value(Type type) {
  switch (type) {
    case Type::kF32:
      return 0x3f800000;
    case Type::kF16:
    case Type::kF16x2:
      return 0x3c00;
    case Type::kBF16:
    case Type::kBF16x2:
      return 0x3f80;
    case Type::kU16:
    case Type::kS16:
      return 0xffff;
    default:
      return 0xffffffff;
  }
}

template <bool Brain>
void run_set(Warp& warp, const Instruction& in) {
  const uint32_t value = combine(warp, in, compare_lanes<uint16_t, Brain>(warp, in, 0));
  const Type type = static_cast<Type>(in.u[3]);
  const uint32_t yes = set_value(type);
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.mask >> lane & 1)) continue;
    const uint32_t result = value >> lane & 1 ? yes : 0;
    if (size_of(type) == 2)
      warp.row<uint16_t>(in.dst)[lane] = static_cast<uint16_t>(result);
    else
      warp.row<uint32_t>(in.dst)[lane] = result;
  }
}

template <bool Brain>
void run_set_pair(Warp& warp, const Instruction& in) {
  const uint32_t low = combine(warp, in, compare_lanes<uint32_t, Brain>(warp, in, 0));
  const uint32_t high = combine(warp, in, compare_lanes<uint32_t, Brain>(warp, in, 16));
  const Type type = static_cast<Type>(in.u[3]);
  const uint32_t yes = is_integer(type) ? 0xffff : set_value(type);
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.mask >> lane & 1)) continue;
    warp.row<uint32_t>(in.dst)[lane] = (low >> lane & 1 ? yes : 0) | (high >> lane & 1 ? yes << 16 : 0);
  }
}

void add_comparisons(HandlerTable& t) {
  for (int compare = 0; compare <= static_cast<int>(Compare::kNan); ++compare) {
    for (int ftz : {0, 32}) {
      const uint8_t v = static_cast<uint8_t>(compare | ftz);
      t.add({Op::kSetp, Type::kF16, Type::kNone, v}, {run_setp<false>, run_setp<false>});
      t.add({Op::kSetp, Type::kBF16, Type::kNone, v}, {run_setp<true>, run_setp<true>});
      t.add({Op::kSetp, Type::kF16x2, Type::kNone, v}, {run_setp_pair<false>, run_setp_pair<false>});
      t.add({Op::kSetp, Type::kBF16x2, Type::kNone, v}, {run_setp_pair<true>, run_setp_pair<true>});
      t.add({Op::kSet, Type::kF16, Type::kNone, v}, {run_set<false>, run_set<false>});
      t.add({Op::kSet, Type::kBF16, Type::kNone, v}, {run_set<true>, run_set<true>});
      t.add({Op::kSet, Type::kF16x2, Type::kNone, v}, {run_set_pair<false>, run_set_pair<false>});
      t.add({Op::kSet, Type::kBF16x2, Type::kNone, v}, {run_set_pair<true>, run_set_pair<true>});
    }
  }
}

}  // namespace

void register_half(HandlerTable& table) {
  add_format<false>(table);
  add_format<true>(table);
  add_comparisons(table);
}

}  // namespace flopcuda::ptxvm
