// Tensor-core instructions: ldmatrix, stmatrix, movmatrix, mma.sync and wmma.
//
// Where a lane holds which element is given by the ISA for mma.sync; the layout of wmma's fragments is left to the
// machine. How a tensor core rounds is not specified either: here a whole dot product is summed in double (in integers
// for integer types) and rounded once.
#include "decode/matrix.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <vector>

#include "execute/half.h"
#include "execute/handlers.h"
#include "execute/memory.h"
#include "execute/warp.h"

namespace flopcuda::ptxvm {
namespace {

constexpr int kMostColumns = 32;
constexpr uint32_t kSingleNan = 0x7fffffff;

struct Element {
  int row, column;
};

// Element `slot` of a lane's fragment: registers in order, within a register from its low bits.
Element mma_a(int rows, int per_register, int lane, int slot) {
  const int group = lane / 4, thread = lane % 4, reg = slot / per_register, in_register = slot % per_register;
  if (rows == 8) return {group, thread * per_register + in_register + 4 * per_register * reg};
  return {group + 8 * (reg & 1), thread * per_register + in_register + 4 * per_register * (reg >> 1)};
}
Element mma_b(int per_register, int lane, int slot) {
  const int group = lane / 4, thread = lane % 4, reg = slot / per_register, in_register = slot % per_register;
  return {thread * per_register + in_register + 4 * per_register * reg, group};
}
Element mma_c(int lane, int slot) { return {lane / 4 + 8 * (slot / 2), lane % 4 * 2 + slot % 2}; }

// wmma: elements go round the lanes in row-major order; fragments that have room hold the matrix twice.
Element wmma_element(int rows, int columns, int lane, int slot) {
  const int linear = (slot * kLanes + lane) % (rows * columns);
  return {linear / columns, linear % columns};
}

// Row-major. The largest are the 16 x 256 single bits of mma.
class Matrix {
 public:
  explicit Matrix(int columns) : columns_(columns) {}
  double& at(Element e) { return values_[e.row * columns_ + e.column]; }
  const double* row(int row) const { return values_ + row * columns_; }

 private:
  int columns_;
  double values_[16 * 256];  // not all are used
};

// By moving the fields to those of a float: a power of two mends the exponent, also of subnormal numbers.
double half_value(uint32_t bits) {
  const uint32_t magnitude = bits & 0x7fff;
  const uint32_t moved = (bits & 0x8000) << 16 | magnitude << 13 | (magnitude >= 0x7c00 ? 0x7f800000u : 0u);
  float value;
  std::memcpy(&value, &moved, sizeof value);
  return magnitude >= 0x7c00 ? value : value * 0x1p112f;
}

double single_value(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

double decode_element(uint64_t bits, Type type) {
  switch (type) {
    case Type::kF16:
      return half_value(static_cast<uint32_t>(bits));
    case Type::kBF16:
      return single_value(static_cast<uint32_t>(bits) << 16);
    case Type::kTF32:
      return single_value(static_cast<uint32_t>(bits) & 0xffffe000u);
    case Type::kF32:
      return single_value(static_cast<uint32_t>(bits));
    case Type::kF64: {
      double value;
      std::memcpy(&value, &bits, sizeof value);
      return value;
    }
    case Type::kS8:
      return static_cast<int8_t>(bits);
    case Type::kU8:
      return static_cast<uint8_t>(bits);
    case Type::kS4:
      return static_cast<int8_t>(bits << 4) >> 4;
    case Type::kU4:
      return static_cast<double>(bits & 15);
    case Type::kB1:
      return static_cast<double>(bits & 1);
    case Type::kE4M3:
      return to_double(static_cast<uint8_t>(bits), kE4M3);
    case Type::kE5M2:
      return to_double(static_cast<uint8_t>(bits), kE5M2);
    default:
      return static_cast<int32_t>(bits);
  }
}

uint32_t single_bits(double value) {
  if (value != value) return kSingleNan;
  const float rounded = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &rounded, sizeof bits);
  return bits;
}

uint64_t encode_element(double value, const MatrixMultiply& m) {
  switch (m.d) {
    case Type::kF16:
      return from_double(value, kFloat16);
    case Type::kF32:
      return single_bits(value);
    case Type::kF64: {
      uint64_t bits;
      std::memcpy(&bits, &value, sizeof bits);
      return bits;
    }
    default:
      if (m.saturate) value = std::fmin(std::fmax(value, -2147483648.0), 2147483647.0);
      return static_cast<uint32_t>(static_cast<int64_t>(value));
  }
}

uint64_t read_slot(Warp& warp, const std::vector<Ref>& refs, size_t first, Type type, int lane, int slot) {
  const int bits = element_bits(type);
  if (bits == 64) return warp.row<uint64_t>(refs[first + static_cast<size_t>(slot)])[lane];
  const int per_register = 32 / bits;
  const uint32_t word = warp.row<uint32_t>(refs[first + static_cast<size_t>(slot / per_register)])[lane];
  return word >> (bits * (slot % per_register));
}

void write_slot(Warp& warp, const std::vector<Ref>& refs, Type type, int lane, int slot, uint64_t value) {
  const int bits = element_bits(type);
  if (bits == 64) {
    warp.row<uint64_t>(refs[static_cast<size_t>(slot)])[lane] = value;
  } else if (bits == 32) {
    warp.row<uint32_t>(refs[static_cast<size_t>(slot)])[lane] = static_cast<uint32_t>(value);
  } else {
    const int per_register = 32 / bits, shift = bits * (slot % per_register);
    uint32_t& word = warp.row<uint32_t>(refs[static_cast<size_t>(slot / per_register)])[lane];
    word = (word & ~(((1u << bits) - 1) << shift)) | static_cast<uint32_t>(value) << shift;
  }
}

// The fragment whose element `slot` of a lane is at where(per_register, lane, slot), from so many registers. The first
// is known when this is compiled: nothing is divided.
template <Type type, class Where>
void gather_of(Warp& warp, const Ref* refs, size_t registers, Where where, Matrix& out) {
  constexpr int bits = element_bits(type), per_register = bits == 64 ? 1 : 32 / bits;
  using Word = std::conditional_t<bits == 64, uint64_t, uint32_t>;
  for (size_t reg = 0; reg < registers; ++reg) {
    const Word* words = warp.row<Word>(refs[reg]);
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int part = 0; part < per_register; ++part) {
        const int slot = static_cast<int>(reg) * per_register + part;
        out.at(where(per_register, lane, slot)) = decode_element(words[lane] >> (part * (bits % 64)), type);
      }
    }
  }
}

template <class Where>
void gather(Warp& warp, const Ref* refs, size_t registers, Type type, Where where, Matrix& out) {
  switch (type) {
    case Type::kF16:
      return gather_of<Type::kF16>(warp, refs, registers, where, out);
    case Type::kBF16:
      return gather_of<Type::kBF16>(warp, refs, registers, where, out);
    case Type::kTF32:
      return gather_of<Type::kTF32>(warp, refs, registers, where, out);
    case Type::kF32:
      return gather_of<Type::kF32>(warp, refs, registers, where, out);
    case Type::kF64:
      return gather_of<Type::kF64>(warp, refs, registers, where, out);
    case Type::kS8:
      return gather_of<Type::kS8>(warp, refs, registers, where, out);
    case Type::kU8:
      return gather_of<Type::kU8>(warp, refs, registers, where, out);
    case Type::kS4:
      return gather_of<Type::kS4>(warp, refs, registers, where, out);
    case Type::kU4:
      return gather_of<Type::kU4>(warp, refs, registers, where, out);
    case Type::kB1:
      return gather_of<Type::kB1>(warp, refs, registers, where, out);
    case Type::kE4M3:
      return gather_of<Type::kE4M3>(warp, refs, registers, where, out);
    case Type::kE5M2:
      return gather_of<Type::kE5M2>(warp, refs, registers, where, out);
    default:
      return gather_of<Type::kS32>(warp, refs, registers, where, out);
  }
}

// sums += a row of a times b, element by element in the order of k: products(x, y, sum) is the new sum.
template <class Accumulate>
void multiply_row(const double* a, const Matrix& b, int depth, int columns, double* sums, Accumulate accumulate) {
  for (int k = 0; k < depth; ++k) {
    const double x = a[k];
    const double* y = b.row(k);
    for (int column = 0; column < columns; ++column) sums[column] = accumulate(x, y[column], sums[column]);
  }
}

// In double, to be rounded once. Of doubles each step rounds, and the accumulator comes first.
void multiply_row(const MatrixMultiply& m, const double* a, const Matrix& b, const double* c, double* sums) {
  const int columns = m.shape.n;
  std::fill_n(sums, columns, 0.0);
  if (m.d == Type::kF64) {
    std::copy_n(c, columns, sums);
    return multiply_row(a, b, m.shape.k, columns, sums, [](double x, double y, double s) { return std::fma(x, y, s); });
  }
  if (m.exclusive) {
    multiply_row(a, b, m.shape.k, columns, sums, [](double x, double y, double s) { return s + (x != y); });
  } else {
    multiply_row(a, b, m.shape.k, columns, sums, [](double x, double y, double s) { return s + x * y; });
  }
  for (int column = 0; column < columns; ++column) sums[column] += c[column];
}

// `a_at`, `b_at`, `c_at` give the places of the fragments' elements.
template <class A, class B, class C>
void multiply(Warp& warp, const Instruction& in, const MatrixMultiply& m, A a_at, B b_at, C c_at) {
  const std::vector<Ref>& src = in.extra->src;
  const size_t a_count = static_cast<size_t>(m.a_registers), b_count = static_cast<size_t>(m.b_registers);
  Matrix a(m.shape.k), b(m.shape.n), c(m.shape.n), d(m.shape.n);
  gather(warp, src.data(), a_count, m.a, a_at, a);
  gather(warp, src.data() + a_count, b_count, m.b, b_at, b);
  gather(warp, src.data() + a_count + b_count, src.size() - a_count - b_count, m.c, c_at, c);
  double sums[kMostColumns];
  for (int row = 0; row < m.shape.m; ++row) {
    multiply_row(m, a.row(row), b, c.row(row), sums);
    for (int column = 0; column < m.shape.n; ++column) d.at({row, column}) = sums[column];
  }
  const int slots = m.shape.m * m.shape.n / kLanes;
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int slot = 0; slot < slots; ++slot) {
      write_slot(warp, in.extra->dst, m.d, lane, slot, encode_element(d.at(c_at(1, lane, slot)), m));
    }
  }
}

void run_mma(Warp& warp, const Instruction& in) {
  const MatrixMultiply m = unpack_matrix(in.extra->values);
  const auto [rows, columns, depth] = std::tuple(m.shape.m, m.shape.n, m.shape.k);
  if (m.wmma) {
    const auto within = [](int height, int width) {
      return [=](int, int lane, int slot) { return wmma_element(height, width, lane, slot); };
    };
    return multiply(warp, in, m, within(rows, depth), within(depth, columns), within(rows, columns));
  }
  multiply(
      warp, in, m,
      [height = rows](int per_register, int lane, int slot) { return mma_a(height, per_register, lane, slot); }, mma_b,
      [](int, int lane, int slot) { return mma_c(lane, slot); });
}

// ---- 8 x 8 matrices of 16-bit elements in shared memory: lane l gives the address of row l % 8 of matrix l / 8 ----

void matrix_rows(Warp& warp, const Instruction& in, AccessKind kind, Access& access) {
  alignas(64) int64_t addresses[kLanes];
  register_addresses(warp, in, addresses);
  const uint32_t saved = warp.mask;
  const int lanes = 8 * in.u[0];
  warp.mask &= lanes == kLanes ? kAllLanes : (1u << lanes) - 1;
  // A generic address is one of the window of shared memory, or out of bounds.
  if (static_cast<Space>(in.u[2]) == Space::kGeneric) {
    for (int64_t& address : addresses) address = static_cast<int64_t>(static_cast<uint64_t>(address) - kSharedWindow);
  }
  begin_access_at(warp, in, Space::kShared, kind, addresses, 16, access);
  warp.mask = saved;
}

void run_ldmatrix(Warp& warp, const Instruction& in) {
  Access access;
  matrix_rows(warp, in, AccessKind::kRead, access);
  const auto element = [&](int matrix, int row, int column) {
    const int lane = 8 * matrix + row;
    uint16_t value = 0;
    if (access.mask >> lane & 1) std::memcpy(&value, access.host + access.relative[lane] + 2 * column, sizeof value);
    return value;
  };
  for (int matrix = 0; matrix < in.u[0]; ++matrix) {
    uint32_t* d = warp.row<uint32_t>(in.extra->dst[static_cast<size_t>(matrix)]);
    for (int lane = 0; lane < kLanes; ++lane) {
      if (!(warp.mask >> lane & 1)) continue;
      const int row = lane / 4, column = lane % 4 * 2;
      const uint32_t low = in.u[1] ? element(matrix, column, row) : element(matrix, row, column);
      const uint32_t high = in.u[1] ? element(matrix, column + 1, row) : element(matrix, row, column + 1);
      d[lane] = low | high << 16;
    }
  }
}

void run_stmatrix(Warp& warp, const Instruction& in) {
  Access access;
  matrix_rows(warp, in, AccessKind::kWrite, access);
  for (int matrix = 0; matrix < in.u[0]; ++matrix) {
    const uint32_t* s = warp.row<uint32_t>(in.extra->src[static_cast<size_t>(matrix)]);
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int half = 0; half < 2; ++half) {
        const uint16_t value = static_cast<uint16_t>(s[lane] >> (16 * half));
        const int row = in.u[1] ? lane % 4 * 2 + half : lane / 4;
        const int column = in.u[1] ? lane / 4 : lane % 4 * 2 + half;
        if (access.mask >> (8 * matrix + row) & 1) {
          std::memcpy(access.host + access.relative[8 * matrix + row] + 2 * column, &value, sizeof value);
        }
      }
    }
  }
}

void run_movmatrix(Warp& warp, const Instruction& in) {
  uint32_t source[kLanes];
  std::memcpy(source, warp.row<uint32_t>(in.a), sizeof source);
  const auto element = [&](int row, int column) {
    return source[row * 4 + column / 2] >> (16 * (column & 1)) & 0xffff;
  };
  uint32_t* d = warp.row<uint32_t>(in.dst);
  for (int lane = 0; lane < kLanes; ++lane) {
    const int row = lane / 4, column = lane % 4 * 2;
    d[lane] = element(column, row) | element(column + 1, row) << 16;
  }
}

// ---- wmma.load and wmma.store ----

// Where the matrix lies, from each lane's operands: read before any result is written over them.
struct WmmaPlace {
  alignas(64) int64_t base[kLanes];
  int64_t leading[kLanes];
};

WmmaPlace wmma_place(Warp& warp, const Instruction& in) {
  const std::vector<int64_t>& v = in.extra->values;
  WmmaPlace place;
  register_addresses(warp, in, place.base);
  for (int lane = 0; lane < kLanes; ++lane) {
    place.leading[lane] = in.b == kNoRef ? v[v[2] ? 1 : 0] : warp.row<uint32_t>(in.b)[lane];
  }
  return place;
}

// Addresses of element `slot` of every lane's fragment.
void wmma_addresses(const Instruction& in, const WmmaPlace& place, int slot, int64_t* out) {
  const std::vector<int64_t>& v = in.extra->values;
  const bool row_major = v[2] != 0;
  const int bytes = size_of(static_cast<Type>(v[3]));
  for (int lane = 0; lane < kLanes; ++lane) {
    const Element e = wmma_element(static_cast<int>(v[0]), static_cast<int>(v[1]), lane, slot);
    const int64_t major = row_major ? e.row : e.column, minor = row_major ? e.column : e.row;
    out[lane] = static_cast<int64_t>(static_cast<uint64_t>(place.base[lane]) +
                                     static_cast<uint64_t>((major * place.leading[lane] + minor) * bytes));
  }
}

void run_wmma_memory(Warp& warp, const Instruction& in) {
  const bool load = in.op == Op::kWmmaLoad;
  const Type type = static_cast<Type>(in.extra->values[3]);
  const int bytes = size_of(type);
  const std::vector<Ref>& refs = load ? in.extra->dst : in.extra->src;
  const int slots = static_cast<int>(refs.size()) * (bytes == 8 ? 1 : 4 / bytes);
  const Space space = static_cast<Space>(in.u[2]);
  const WmmaPlace place = wmma_place(warp, in);
  alignas(64) int64_t addresses[kLanes];
  for (int slot = 0; slot < slots; ++slot) {
    wmma_addresses(in, place, slot, addresses);
    Access access;
    begin_access_at(warp, in, space, load ? AccessKind::kRead : AccessKind::kWrite, addresses, bytes, access);
    for (uint32_t rest = warp.mask; rest; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      const bool good = access.mask >> lane & 1;
      uint64_t value = 0;
      if (load) {
        if (good) std::memcpy(&value, access.host + access.relative[lane], static_cast<size_t>(bytes));
        write_slot(warp, refs, type, lane, slot, value);
      } else if (good) {
        value = read_slot(warp, refs, 0, type, lane, slot);
        std::memcpy(access.host + access.relative[lane], &value, static_cast<size_t>(bytes));
      }
    }
  }
}

}  // namespace

void register_matrix(HandlerTable& table) {
  table.add({Op::kMma}, {run_mma, run_mma});
  table.add({Op::kLdmatrix}, {run_ldmatrix, run_ldmatrix});
  table.add({Op::kStmatrix}, {run_stmatrix, run_stmatrix});
  table.add({Op::kMovmatrix}, {run_movmatrix, run_movmatrix});
  table.add({Op::kWmmaLoad}, {run_wmma_memory, run_wmma_memory});
  table.add({Op::kWmmaStore}, {run_wmma_memory, run_wmma_memory});
}

}  // namespace flopcuda::ptxvm
