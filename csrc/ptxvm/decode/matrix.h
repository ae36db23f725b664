// A decoded matrix multiply-accumulate, packed into Extra::values.
#pragma once

#include <cstdint>
#include <vector>

#include "types.h"

namespace flopcuda::ptxvm {

struct MatrixShape {
  int m = 0, n = 0, k = 0;
  bool operator==(const MatrixShape& other) const { return m == other.m && n == other.n && k == other.k; }
};

struct MatrixMultiply {
  MatrixShape shape;
  Type a, b, c, d;
  bool saturate;
  bool exclusive;  // single bits are combined by xor instead of and
  bool wmma;       // fragments in the machine's own layout, not mma.sync's
  int a_registers, b_registers;
};

constexpr int element_bits(Type type) {
  return type == Type::kB1 ? 1 : type == Type::kS4 || type == Type::kU4 ? 4 : 8 * size_of(type);
}

inline std::vector<int64_t> pack_matrix(const MatrixMultiply& m) {
  return {m.shape.m,
          m.shape.n,
          m.shape.k,
          static_cast<int64_t>(m.a),
          static_cast<int64_t>(m.b),
          static_cast<int64_t>(m.c),
          static_cast<int64_t>(m.d),
          m.saturate,
          m.exclusive,
          m.wmma,
          m.a_registers,
          m.b_registers};
}

inline MatrixMultiply unpack_matrix(const std::vector<int64_t>& v) {
  return {{static_cast<int>(v[0]), static_cast<int>(v[1]), static_cast<int>(v[2])},
          static_cast<Type>(v[3]),
          static_cast<Type>(v[4]),
          static_cast<Type>(v[5]),
          static_cast<Type>(v[6]),
          v[7] != 0,
          v[8] != 0,
          v[9] != 0,
          static_cast<int>(v[10]),
          static_cast<int>(v[11])};
}

}  // namespace flopcuda::ptxvm
