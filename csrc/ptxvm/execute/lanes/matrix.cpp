// Tensor-core instructions: ldmatrix, stmatrix, movmatrix, mma.sync and wmma.
//
// Where a lane holds which element is given by the ISA for mma.sync; the layout of wmma's fragments is left to the
// machine. How a tensor core rounds is not specified either: here a whole dot product is summed in double (in integers
// for integer types) and rounded once.
#include "decode/matrix.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "execute/half.h"
#include "execute/handlers.h"
#include "execute/memory.h"
#include "execute/warp.h"

namespace flopcuda::ptxvm {
namespace {

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

class Matrix {
 public:
  Matrix(int rows, int columns) : columns_(columns), values_(static_cast<size_t>(rows * columns)) {}
  double& at(Element e) { return values_[static_cast<size_t>(e.row * columns_ + e.column)]; }
  double at(int row, int column) const { return values_[static_cast<size_t>(row * columns_ + column)]; }

 private:
  int columns_;
  std::vector<double> values_;
};

double decode_element(uint64_t bits, Type type) {
  switch (type) {
    case Type::kF16:
      return to_double(static_cast<uint16_t>(bits), kFloat16);
    case Type::kBF16:
      return to_double(static_cast<uint16_t>(bits), kBfloat16);
    case Type::kTF32:
    case Type::kF32: {
      const uint32_t word = static_cast<uint32_t>(bits) & (type == Type::kTF32 ? 0xffffe000u : 0xffffffffu);
      float value;
      std::memcpy(&value, &word, sizeof value);
      return value;
    }
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

uint64_t encode_element(double value, const MatrixMultiply& m) {
  switch (m.d) {
    case Type::kF16:
      return from_double(value, kFloat16);
    case Type::kF32:
      return round_to(value, kSingle, Rounding::kNearest);
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

template <class Where>
Matrix gather(Warp& warp, const std::vector<Ref>& refs, size_t first, size_t registers, Type type, int rows,
              int columns, Where where) {
  Matrix matrix(rows, columns);
  const int bits = element_bits(type);
  const int slots = static_cast<int>(registers) * (bits == 64 ? 1 : 32 / bits);
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int slot = 0; slot < slots; ++slot) {
      matrix.at(where(lane, slot)) = decode_element(read_slot(warp, refs, first, type, lane, slot), type);
    }
  }
  return matrix;
}

void run_mma(Warp& warp, const Instruction& in) {
  const MatrixMultiply m = unpack_matrix(in.extra->values);
  const std::vector<Ref>& src = in.extra->src;
  const auto [rows, columns, depth] = std::tuple(m.shape.m, m.shape.n, m.shape.k);
  const int packed = element_bits(m.a) == 64 ? 1 : 32 / element_bits(m.a);
  const size_t a_count = static_cast<size_t>(m.a_registers), b_count = static_cast<size_t>(m.b_registers);
  const Matrix a = gather(warp, src, 0, a_count, m.a, rows, depth, [&, rows = rows, depth = depth](int lane, int slot) {
    return m.wmma ? wmma_element(rows, depth, lane, slot) : mma_a(rows, packed, lane, slot);
  });
  const Matrix b = gather(warp, src, a_count, b_count, m.b, depth, columns,
                          [&, columns = columns, depth = depth](int lane, int slot) {
                            return m.wmma ? wmma_element(depth, columns, lane, slot) : mma_b(packed, lane, slot);
                          });
  const auto where = [&, rows = rows, columns = columns](int lane, int slot) {
    return m.wmma ? wmma_element(rows, columns, lane, slot) : mma_c(lane, slot);
  };
  const Matrix c = gather(warp, src, a_count + b_count, src.size() - a_count - b_count, m.c, rows, columns, where);
  const int slots = rows * columns / kLanes;
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int slot = 0; slot < slots; ++slot) {
      const Element e = where(lane, slot);
      double sum = 0;
      if (m.d == Type::kF64) {
        sum = c.at(e.row, e.column);
        for (int k = 0; k < depth; ++k) sum = std::fma(a.at(e.row, k), b.at(k, e.column), sum);
      } else {
        for (int k = 0; k < depth; ++k) {
          const double x = a.at(e.row, k), y = b.at(k, e.column);
          sum += m.exclusive ? x != y : x * y;
        }
        sum += c.at(e.row, e.column);
      }
      write_slot(warp, in.extra->dst, m.d, lane, slot, encode_element(sum, m));
    }
  }
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
