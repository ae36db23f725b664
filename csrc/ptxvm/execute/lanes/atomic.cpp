// atom and red. Real atomics on the host's memory: blocks of one launch run at the same time.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "decode/address_flags.h"
#include "execute/half.h"
#include "execute/handlers.h"
#include "execute/memory.h"
#include "execute/warp.h"

namespace flopcuda::ptxvm {
namespace {

template <class T, class F>
T exchange_loop(T* place, F next) {
  T old = __atomic_load_n(place, __ATOMIC_RELAXED);
  T wanted = next(old);
  while (!__atomic_compare_exchange_n(place, &old, wanted, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
    wanted = next(old);
  return old;
}

template <class To, class From>
To as(From value) {
  To result;
  static_assert(sizeof(To) == sizeof(From));
  std::memcpy(&result, &value, sizeof result);
  return result;
}

float flush(float x) { return (as<uint32_t>(x) & 0x7f800000u) ? x : as<float>(as<uint32_t>(x) & 0x80000000u); }

uint16_t add_half(uint16_t a, uint16_t b, const HalfFormat& format) {
  return from_double(to_double(a, format) + to_double(b, format), format);
}

// Floating-point addition on the bits of a value. 32-bit addition in global memory flushes subnormals, as hardware
// does.
template <class T>
T float_add(T old, T operand, Type type, bool flush_subnormals) {
  if constexpr (sizeof(T) == 8) {
    return as<uint64_t>(as<double>(old) + as<double>(operand));
  } else if constexpr (sizeof(T) == 4) {
    if (type == Type::kF32) {
      const float x = as<float>(old), y = as<float>(operand);
      const float sum = flush_subnormals ? flush(flush(x) + flush(y)) : x + y;
      return sum == sum ? as<uint32_t>(sum) : 0x7fffffffu;
    }
    const HalfFormat& format = type == Type::kF16x2 ? kFloat16 : kBfloat16;
    const uint32_t low = add_half(static_cast<uint16_t>(old), static_cast<uint16_t>(operand), format);
    const uint32_t high = add_half(static_cast<uint16_t>(old >> 16), static_cast<uint16_t>(operand >> 16), format);
    return low | high << 16;
  } else {
    return add_half(old, operand, type == Type::kF16 ? kFloat16 : kBfloat16);
  }
}

template <class T>
T apply(T* place, AtomicOp op, Type type, T b, T c, bool flush_subnormals) {
  using S = std::make_signed_t<T>;
  const bool with_sign = is_signed(type);
  switch (op) {
    case AtomicOp::kExchange:
      return __atomic_exchange_n(place, b, __ATOMIC_ACQ_REL);
    case AtomicOp::kCompareSwap: {
      T expected = b;
      __atomic_compare_exchange_n(place, &expected, c, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
      return expected;
    }
    case AtomicOp::kAnd:
      return __atomic_fetch_and(place, b, __ATOMIC_ACQ_REL);
    case AtomicOp::kOr:
      return __atomic_fetch_or(place, b, __ATOMIC_ACQ_REL);
    case AtomicOp::kXor:
      return __atomic_fetch_xor(place, b, __ATOMIC_ACQ_REL);
    case AtomicOp::kInc:
      return exchange_loop(place, [=](T old) { return old >= b ? T{0} : static_cast<T>(old + 1); });
    case AtomicOp::kDec:
      return exchange_loop(place, [=](T old) { return old == 0 || old > b ? b : static_cast<T>(old - 1); });
    case AtomicOp::kMin:
      return exchange_loop(place, [=](T old) {
        return with_sign ? static_cast<T>(std::min(static_cast<S>(old), static_cast<S>(b))) : std::min(old, b);
      });
    case AtomicOp::kMax:
      return exchange_loop(place, [=](T old) {
        return with_sign ? static_cast<T>(std::max(static_cast<S>(old), static_cast<S>(b))) : std::max(old, b);
      });
    case AtomicOp::kAdd:
      break;
  }
  if (is_integer(type)) return __atomic_fetch_add(place, b, __ATOMIC_ACQ_REL);
  return exchange_loop(place, [=](T old) { return float_add(old, b, type, flush_subnormals); });
}

template <class T, Space S>
void run_atomic(Warp& warp, const Instruction& in) {
  Access access;
  if (!begin_access(warp, in, S, AccessKind::kAtomic, access, run_atomic<T, S>)) return;
  const T* c = warp.row<T>(in.c);
  const AtomicOp op = static_cast<AtomicOp>(in.u[1]);
  const Type type = static_cast<Type>(in.u[2]);
  const bool in_shared = access.host >= shared_begin(warp) && access.host < shared_end(warp);
  const size_t elements = in.u[0] / sizeof(T);
  for (size_t element = 0; element < elements; ++element) {
    const Ref dst = in.extra ? in.extra->dst[element] : in.dst;
    const T* b = warp.row<T>(in.extra ? in.extra->src[element] : in.b);
    T* d = warp.row<T>(dst);
    for (uint32_t rest = access.mask; rest; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      T* const place = reinterpret_cast<T*>(access.host + access.relative[lane]) + element;
      const T old = apply(place, op, type, b[lane], c[lane], !in_shared);
      if (dst != kNoRef) d[lane] = old;
    }
  }
}

template <class T>
void add_atomic(HandlerTable& table, Type width) {
  const auto add = [&](Space space, Handler handler) {
    table.add({Op::kAtom, width, Type::kNone, static_cast<uint8_t>(space)}, {handler, handler});
  };
  add(Space::kGeneric, run_atomic<T, Space::kGeneric>);
  add(Space::kGlobal, run_atomic<T, Space::kGlobal>);
  add(Space::kShared, run_atomic<T, Space::kShared>);
}

}  // namespace

void register_atomic(HandlerTable& table) {
  add_atomic<uint16_t>(table, Type::kU16);
  add_atomic<uint32_t>(table, Type::kU32);
  add_atomic<uint64_t>(table, Type::kU64);
}

}  // namespace flopcuda::ptxvm
