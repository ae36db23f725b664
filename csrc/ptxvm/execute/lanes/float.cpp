// Division, roots, the approximate functions, and directed rounding of everything that rounds.
//
// The ISA bounds the error of an .approx function but does not say its bits; here they are the correctly rounded ones,
// or the C library's, which lie within every bound.
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "execute/handlers.h"
#include "execute/warp.h"

namespace flopcuda::ptxvm {
namespace {
#include "execute/lanes/lanes.inc"

struct DivOp : Stateless {
  using Stateless::Stateless;
  template <class T>
  PTXVM_INLINE T operator()(T a, T b) const {
    return a / b;
  }
};
// .approx gives 0 for divisors above 2^126, where its reciprocal is no normal number; .full scales first.
struct DivApprox {
  bool full;
  explicit DivApprox(const Instruction& in) : full(in.u[2]) {}
  PTXVM_INLINE float operator()(float a, float b) const {
    const float magnitude = std::fabs(b);
    if (!full && magnitude > 0x1p126f && magnitude < HUGE_VALF) return a * 0.0f;
    return a / b;
  }
};
struct RcpOp : Stateless {
  using Stateless::Stateless;
  template <class T>
  PTXVM_INLINE T operator()(T a) const {
    return T{1} / a;
  }
};
struct SqrtOp : Stateless {
  using Stateless::Stateless;
  template <class T>
  PTXVM_INLINE T operator()(T a) const {
    return std::sqrt(a);
  }
};
struct RsqrtOp : Stateless {
  using Stateless::Stateless;
  PTXVM_INLINE float operator()(float a) const { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(a))); }
  PTXVM_INLINE double operator()(double a) const { return 1.0 / std::sqrt(a); }
};
struct SinOp : Stateless {
  using Stateless::Stateless;
  float operator()(float a) const { return static_cast<float>(std::sin(static_cast<double>(a))); }
};
struct CosOp : Stateless {
  using Stateless::Stateless;
  float operator()(float a) const { return static_cast<float>(std::cos(static_cast<double>(a))); }
};
struct Lg2Op : Stateless {
  using Stateless::Stateless;
  float operator()(float a) const { return static_cast<float>(std::log2(static_cast<double>(a))); }
};
struct Ex2Op : Stateless {
  using Stateless::Stateless;
  float operator()(float a) const { return static_cast<float>(std::exp2(static_cast<double>(a))); }
};
struct TanhOp : Stateless {
  using Stateless::Stateless;
  float operator()(float a) const { return static_cast<float>(std::tanh(static_cast<double>(a))); }
};
// .approx.ftz.f64: the lower half of the result is zero, subnormals count as zero.
template <class F>
struct UpperHalf64 : F {
  using F::F;
  PTXVM_INLINE double operator()(double a) const {
    const double flushed = std::fabs(a) < 0x1p-1022 ? std::copysign(0.0, a) : a;
    const double result = F::operator()(flushed);
    if (result != result) return result;
    const double upper = bit_cast<double>(bit_cast<uint64_t>(result) & 0xffffffff00000000ull);
    return std::fabs(upper) < 0x1p-1022 ? std::copysign(0.0, upper) : upper;
  }
};

// ---- directed rounding: the processor's own, switched for the duration of a handler ----

int host_rounding(uint8_t rounding) {
  switch (static_cast<Rounding>(rounding)) {
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

template <Handler Body>
void run_directed(Warp& warp, const Instruction& in) {
  std::fesetround(host_rounding(in.u[0]));
  Body(warp, in);
  std::fesetround(FE_TONEAREST);
}

constexpr Type f32 = Type::kF32;
constexpr Type f64 = Type::kF64;

template <class F, bool Ftz, bool Sat>
void add_directed32(HandlerTable& t, Op op) {
  const uint8_t variant = kDirected | (Ftz ? kFtz : 0) | (Sat ? kSat : 0);
  using W = Float32<F, Ftz, Sat>;
  if constexpr (std::is_invocable_v<F, float>) {
    t.add({op, f32, Type::kNone, variant},
          {run_directed<run_unary<true, W, float, float>>, run_directed<run_unary<false, W, float, float>>});
  } else if constexpr (std::is_invocable_v<F, float, float>) {
    t.add({op, f32, Type::kNone, variant}, {run_directed<run_binary<true, W, float, float, float>>,
                                            run_directed<run_binary<false, W, float, float, float>>});
  } else {
    t.add({op, f32, Type::kNone, variant}, {run_directed<run_ternary<true, W, float, float, float, float>>,
                                            run_directed<run_ternary<false, W, float, float, float, float>>});
  }
}

template <class F>
void add_directed(HandlerTable& t, Op op) {
  add_directed32<F, false, false>(t, op);
  add_directed32<F, true, false>(t, op);
  add_directed32<F, false, true>(t, op);
  add_directed32<F, true, true>(t, op);
  if constexpr (std::is_invocable_v<F, double>) {
    t.add({op, f64, Type::kNone, kDirected},
          {run_directed<run_unary<true, F, double, double>>, run_directed<run_unary<false, F, double, double>>});
  } else if constexpr (std::is_invocable_v<F, double, double>) {
    t.add({op, f64, Type::kNone, kDirected}, {run_directed<run_binary<true, F, double, double, double>>,
                                              run_directed<run_binary<false, F, double, double, double>>});
  } else {
    t.add({op, f64, Type::kNone, kDirected}, {run_directed<run_ternary<true, F, double, double, double, double>>,
                                              run_directed<run_ternary<false, F, double, double, double, double>>});
  }
}

template <class F>
void add_function(HandlerTable& t, Op op, uint8_t variant) {
  t.add({op, f32, Type::kNone, variant}, unary<Float32<F, false, false>, float, float>());
  t.add({op, f32, Type::kNone, static_cast<uint8_t>(variant | kFtz)}, unary<Float32<F, true, false>, float, float>());
}

}  // namespace

void register_float(HandlerTable& t) {
  add_directed<AddOp>(t, Op::kAdd);
  add_directed<SubOp>(t, Op::kSub);
  add_directed<MulOp>(t, Op::kMulLo);
  add_directed<FmaOp>(t, Op::kFma);
  add_directed<DivOp>(t, Op::kDiv);
  add_directed<RcpOp>(t, Op::kRcp);
  add_directed<SqrtOp>(t, Op::kSqrt);
  for (uint8_t variant : {uint8_t{0}, uint8_t{kApprox}}) {
    add_function<RcpOp>(t, Op::kRcp, variant);
    add_function<SqrtOp>(t, Op::kSqrt, variant);
  }
  t.add({Op::kDiv, f32}, binary<Float32<DivOp, false, false>, float, float, float>());
  t.add({Op::kDiv, f32, Type::kNone, kFtz}, binary<Float32<DivOp, true, false>, float, float, float>());
  t.add({Op::kDiv, f32, Type::kNone, kApprox}, binary<Float32<DivApprox, false, false>, float, float, float>());
  t.add({Op::kDiv, f32, Type::kNone, kApprox | kFtz}, binary<Float32<DivApprox, true, false>, float, float, float>());
  add_function<RsqrtOp>(t, Op::kRsqrt, kApprox);
  add_function<SinOp>(t, Op::kSin, kApprox);
  add_function<CosOp>(t, Op::kCos, kApprox);
  add_function<Lg2Op>(t, Op::kLg2, kApprox);
  add_function<Ex2Op>(t, Op::kEx2, kApprox);
  add_function<TanhOp>(t, Op::kTanh, kApprox);
  t.add({Op::kDiv, f64}, binary<DivOp, double, double, double>());
  t.add({Op::kRcp, f64}, unary<RcpOp, double, double>());
  t.add({Op::kSqrt, f64}, unary<SqrtOp, double, double>());
  t.add({Op::kRcp, f64, Type::kNone, kApprox | kFtz}, unary<UpperHalf64<RcpOp>, double, double>());
  t.add({Op::kRsqrt, f64, Type::kNone, kApprox | kFtz}, unary<UpperHalf64<RsqrtOp>, double, double>());
  t.add({Op::kRsqrt, f64, Type::kNone, kApprox}, unary<RsqrtOp, double, double>());
}

}  // namespace flopcuda::ptxvm
