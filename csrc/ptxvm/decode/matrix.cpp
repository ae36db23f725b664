// Rules of the tensor-core instructions: ldmatrix, stmatrix, movmatrix, mma and wmma.
//
// All are warp-wide and aligned, so they are control instructions whose mask of members is the whole warp (c absent).
#include "decode/matrix.h"

#include <algorithm>
#include <cstdio>
#include <tuple>

#include "decode/rules.h"

namespace flopcuda::ptxvm {
namespace {

using syntax::Operand;

void emit_collective(FunctionDecoder& decoder, const Instruction& instruction, HandlerKey key,
                     Space space = Space::kGeneric, Type fma = Type::kNone, int64_t macs = 0) {
  decoder.emit(instruction, key, space, fma, macs);
  decoder.pending().back().is_control = true;
}

// All of a warp together: .sync.aligned, and no other flag.
void expect_aligned(const FunctionDecoder& decoder, const Modifiers& modifiers, size_t types, size_t spaces = 0) {
  constexpr uint64_t kBoth = kFlagSync | kFlagAligned;
  decoder.expect_modifiers(modifiers, types, kBoth, spaces);
  decoder.require((modifiers.flags & kBoth) == kBoth, "expected .sync.aligned");
}

// Sets the address, and in u[2] its state space: the modifier's, or else that of the variable named.
Space set_address(FunctionDecoder& decoder, Instruction& instruction, const Operand& operand,
                  const Modifiers& modifiers) {
  const Space named = modifiers.spaces.empty() ? Space::kGeneric : modifiers.spaces[0];
  const FunctionDecoder::Address address = decoder.address_in(operand, named);
  const Space space = named == Space::kGeneric ? address.space : named;
  decoder.require(space == Space::kGeneric || space == Space::kShared || space == Space::kGlobal,
                  "state space not supported");
  set_address(instruction, address);
  instruction.u[2] = static_cast<uint8_t>(space);
  return space;
}

// The registers of a fragment.
const std::vector<Operand>& fragment(const FunctionDecoder& decoder, const Operand& operand, size_t count) {
  decoder.require(operand.kind == Operand::Kind::kVector, "a fragment is a vector of registers");
  decoder.require(operand.items.size() == count, "a fragment has another number of registers");
  return operand.items;
}

void use_fragment(FunctionDecoder& decoder, const Operand& operand, Type type, size_t count, std::vector<Ref>& out) {
  for (const Operand& item : fragment(decoder, operand, count)) {
    decoder.require(item.kind == Operand::Kind::kName, "a fragment is a vector of registers");
    out.push_back(decoder.use(item, type));
  }
}

void define_fragment(FunctionDecoder& decoder, const Operand& operand, Type type, size_t count, std::vector<Ref>& out) {
  for (const Operand& item : fragment(decoder, operand, count)) out.push_back(decoder.define_or_discard(item, type));
}

// ---- ldmatrix, stmatrix: u[0] matrices, u[1] transposed, u[2] state space ----

void matrix_move(FunctionDecoder& decoder, Modifiers modifiers, bool load) {
  decoder.require(modifiers.take("m8n8"), "only .m8n8 is supported");
  Instruction instruction;
  instruction.u[1] = modifiers.take("trans");
  const int count = modifiers.take("x1") ? 1 : modifiers.take("x2") ? 2 : modifiers.take("x4") ? 4 : 0;
  decoder.require(count != 0, "expected .x1, .x2 or .x4");
  expect_aligned(decoder, modifiers, 1, 1);
  decoder.require(modifiers.types[0] == Type::kB16, "only .b16 is supported");
  decoder.expect_operands(2);
  Extra* extra = decoder.new_extra();
  const Space space = set_address(decoder, instruction, decoder.operand(load ? 1 : 0), modifiers);
  decoder.require(space != Space::kGlobal, "the matrix must be in shared memory");
  if (load) {
    define_fragment(decoder, decoder.operand(0), Type::kB32, static_cast<size_t>(count), extra->dst);
  } else {
    use_fragment(decoder, decoder.operand(1), Type::kB32, static_cast<size_t>(count), extra->src);
  }
  instruction.u[0] = static_cast<uint8_t>(count);
  instruction.extra = extra;
  emit_collective(decoder, instruction, {load ? Op::kLdmatrix : Op::kStmatrix}, Space::kShared);
}

void ldmatrix_rule(FunctionDecoder& d, const Modifiers& m) { matrix_move(d, m, true); }
void stmatrix_rule(FunctionDecoder& d, const Modifiers& m) { matrix_move(d, m, false); }

void movmatrix_rule(FunctionDecoder& decoder, const Modifiers& given) {
  Modifiers modifiers = given;
  decoder.require(modifiers.take("m8n8") && modifiers.take("trans"), "expected .m8n8.trans");
  expect_aligned(decoder, modifiers, 1);
  decoder.require(modifiers.types[0] == Type::kB16, "only .b16 is supported");
  decoder.expect_operands(2);
  Instruction instruction;
  decoder.require(decoder.operand(1).kind == Operand::Kind::kName, "movmatrix moves a register");
  instruction.a = decoder.use(decoder.operand(1), Type::kB32);
  instruction.dst = decoder.define(decoder.operand(0), Type::kB32);
  emit_collective(decoder, instruction, {Op::kMovmatrix});
}

// ---- mma ----

bool read_shape(Modifiers& modifiers, MatrixShape& shape) {
  for (const std::string_view word : modifiers.others) {
    char rest = 0;
    if (std::sscanf(std::string(word).c_str(), "m%dn%dk%d%c", &shape.m, &shape.n, &shape.k, &rest) == 3)
      return modifiers.take(word);
  }
  return false;
}

bool is_whole_number(Type type) {
  return type == Type::kS8 || type == Type::kU8 || type == Type::kS4 || type == Type::kU4;
}

// Register type of a fragment of this element.
Type register_of(Type element) {
  return element == Type::kF64 ? Type::kF64 : element == Type::kF32 ? Type::kF32 : Type::kB32;
}

// Multiplicands that may stand together, and the shapes and accumulators they have.
struct MatrixFamily {
  std::vector<Type> multiplicands;
  std::vector<MatrixShape> shapes;
  std::vector<Type> accumulators;
  bool mixes = false;               // the multiplicands may differ
  bool mixes_accumulators = false;  // c and d may differ
};

const std::vector<MatrixFamily>& mma_families() {
  static const std::vector<MatrixFamily> families = {
      {{Type::kF16}, {{16, 8, 8}, {16, 8, 16}}, {Type::kF16, Type::kF32}},
      {{Type::kBF16}, {{16, 8, 8}, {16, 8, 16}}, {Type::kF32}},
      {{Type::kTF32}, {{16, 8, 4}, {16, 8, 8}}, {Type::kF32}},
      {{Type::kF64}, {{8, 8, 4}, {16, 8, 4}, {16, 8, 8}, {16, 8, 16}}, {Type::kF64}},
      {{Type::kE4M3, Type::kE5M2}, {{16, 8, 16}, {16, 8, 32}}, {Type::kF16, Type::kF32}, true},
      {{Type::kS8, Type::kU8}, {{8, 8, 16}, {16, 8, 16}, {16, 8, 32}}, {Type::kS32}, true},
      {{Type::kS4, Type::kU4}, {{8, 8, 32}, {16, 8, 32}, {16, 8, 64}}, {Type::kS32}, true},
      {{Type::kB1}, {{8, 8, 128}, {16, 8, 128}, {16, 8, 256}}, {Type::kS32}},
  };
  return families;
}

const std::vector<MatrixFamily>& wmma_families() {
  static const std::vector<MatrixShape> usual = {{16, 16, 16}, {8, 32, 16}, {32, 8, 16}};
  static const std::vector<MatrixFamily> families = {
      {{Type::kF16}, usual, {Type::kF16, Type::kF32}, false, true},
      {{Type::kBF16}, usual, {Type::kF32}},
      {{Type::kTF32}, {{16, 16, 8}}, {Type::kF32}},
      {{Type::kF64}, {{8, 8, 4}}, {Type::kF64}},
      {{Type::kS8, Type::kU8}, usual, {Type::kS32}},
  };
  return families;
}

template <class T>
bool contains(const std::vector<T>& list, const T& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

// d, a, b, c as the four types stand in the instruction.
void check_multiply(const FunctionDecoder& decoder, const std::vector<MatrixFamily>& families, const MatrixShape& shape,
                    const std::vector<Type>& types) {
  const Type d = types[0], a = types[1], b = types[2], c = types[3];
  for (const MatrixFamily& family : families) {
    if (!contains(family.multiplicands, a)) continue;
    decoder.require(contains(family.shapes, shape), "this type does not come in this shape");
    const bool known = contains(family.multiplicands, b) && (a == b || family.mixes) &&
                       contains(family.accumulators, c) && contains(family.accumulators, d) &&
                       (c == d || family.mixes_accumulators);
    return decoder.require(known, "these types do not go together");
  }
  decoder.fail("matrices of this type are not multiplied");
}

// Of doubles, .rn is what fma does here anyway, and all that nvcc and CUTLASS write.
void take_default_rounding(Modifiers& modifiers) {
  const std::vector<Type>& types = modifiers.types;
  if (types.size() == 4 && types[1] == Type::kF64 && modifiers.rounding == Rounding::kNearest)
    modifiers.rounding.reset();
}

size_t accumulator_registers(int m, int n, Type type) {
  const int elements = m * n / kLanes;
  return static_cast<size_t>(type == Type::kF16 ? elements / 2 : elements);
}

// Emits d = a b + c over fragments of these numbers of registers.
void emit_multiply(FunctionDecoder& decoder, MatrixMultiply multiply) {
  const auto [m, n, k] = std::tuple(multiply.shape.m, multiply.shape.n, multiply.shape.k);
  const size_t a_registers = static_cast<size_t>(multiply.a_registers);
  const size_t b_registers = static_cast<size_t>(multiply.b_registers);
  decoder.expect_operands(4);
  Extra* extra = decoder.new_extra();
  use_fragment(decoder, decoder.operand(1), register_of(multiply.a), a_registers, extra->src);
  use_fragment(decoder, decoder.operand(2), register_of(multiply.b), b_registers, extra->src);
  use_fragment(decoder, decoder.operand(3), register_of(multiply.c), accumulator_registers(m, n, multiply.c),
               extra->src);
  define_fragment(decoder, decoder.operand(0), register_of(multiply.d), accumulator_registers(m, n, multiply.d),
                  extra->dst);
  extra->values = pack_matrix(multiply);
  Instruction instruction;
  instruction.extra = extra;
  emit_collective(decoder, instruction, {Op::kMma}, Space::kGeneric, multiply.a, int64_t{m} * n * k / kLanes);
}

void mma_rule(FunctionDecoder& decoder, const Modifiers& given) {
  Modifiers modifiers = given;
  MatrixMultiply multiply{};
  decoder.require(read_shape(modifiers, multiply.shape), "expected a shape");
  decoder.require(modifiers.take("row") && modifiers.take("col"), "expected .row.col");
  multiply.saturate = modifiers.take("satfinite");
  const bool bits = modifiers.has(kFlagPopc);
  multiply.exclusive = modifiers.has(kFlagXor);
  decoder.require(!bits || multiply.exclusive != modifiers.has(kFlagAnd), "expected .xor.popc or .and.popc");
  if (bits) modifiers.flags &= ~(kFlagPopc | kFlagXor | kFlagAnd);
  take_default_rounding(modifiers);
  expect_aligned(decoder, modifiers, 4);
  check_multiply(decoder, mma_families(), multiply.shape, modifiers.types);
  multiply.d = modifiers.types[0], multiply.a = modifiers.types[1];
  multiply.b = modifiers.types[2], multiply.c = modifiers.types[3];
  decoder.require(bits == (multiply.a == Type::kB1), "single bits, and only they, need .popc");
  decoder.require(!multiply.saturate || is_whole_number(multiply.a), ".satfinite needs integers");
  const int per_lane = kLanes * std::max(32 / element_bits(multiply.a), 1);  // elements of one register of all lanes
  multiply.a_registers = multiply.shape.m * multiply.shape.k / per_lane;
  multiply.b_registers = multiply.shape.k * multiply.shape.n / per_lane;
  emit_multiply(decoder, multiply);
}

// ---- wmma: the layout of its fragments is the machine's own business ----

size_t wmma_registers(const MatrixShape& shape, char which, Type element) {
  if (which == 'c') return accumulator_registers(shape.m, shape.n, element);
  if (element == Type::kF16) return 8;
  const int elements = (which == 'a' ? shape.m : shape.n) * shape.k / kLanes;
  return static_cast<size_t>(element == Type::kF64 ? elements : elements * element_bits(element) / 32);
}

void check_fragment(const FunctionDecoder& decoder, const MatrixShape& shape, char which, Type type) {
  for (const MatrixFamily& family : wmma_families()) {
    const std::vector<Type>& types = which == 'c' ? family.accumulators : family.multiplicands;
    if (contains(types, type) && contains(family.shapes, shape)) return;
  }
  decoder.fail("wmma does not know this shape for this type");
}

void wmma_memory(FunctionDecoder& decoder, Modifiers modifiers, bool load) {
  MatrixShape shape;
  decoder.require(read_shape(modifiers, shape), "expected a shape");
  const bool row = modifiers.take("row");
  decoder.require(row || modifiers.take("col"), "expected .row or .col");
  const char which = load && modifiers.take("a")        ? 'a'
                     : load && modifiers.take("b")      ? 'b'
                     : modifiers.take(load ? "c" : "d") ? 'c'
                                                        : 0;
  decoder.require(which != 0, "expected the name of a matrix");
  expect_aligned(decoder, modifiers, 1, 1);
  const Type type = modifiers.types[0];
  check_fragment(decoder, shape, which, type);
  decoder.expect_operands(2, 3);
  Instruction instruction;
  const Space space = set_address(decoder, instruction, decoder.operand(load ? 1 : 0), modifiers);
  if (decoder.operand_count() == 3) instruction.b = decoder.use(decoder.operand(2), Type::kU32);
  Extra* extra = decoder.new_extra();
  const size_t count = wmma_registers(shape, which, type);
  if (load) {
    define_fragment(decoder, decoder.operand(0), register_of(type), count, extra->dst);
  } else {
    use_fragment(decoder, decoder.operand(1), register_of(type), count, extra->src);
  }
  const int rows = which == 'b' ? shape.k : shape.m;
  const int columns = which == 'a' ? shape.k : shape.n;
  extra->values = {rows, columns, row, static_cast<int64_t>(type)};
  instruction.extra = extra;
  emit_collective(decoder, instruction, {load ? Op::kWmmaLoad : Op::kWmmaStore}, space);
}

void wmma_multiply(FunctionDecoder& decoder, Modifiers modifiers) {
  MatrixMultiply multiply{};
  multiply.wmma = true;
  decoder.require(read_shape(modifiers, multiply.shape), "expected a shape");
  for (int layout = 0; layout < 2; ++layout) {
    decoder.require(modifiers.take("row") || modifiers.take("col"), "expected two layouts");
  }
  multiply.saturate = modifiers.take("satfinite");
  std::vector<Type>& types = modifiers.types;
  if (types.size() == 2) types = {types[0], Type::kF16, Type::kF16, types[1]};
  take_default_rounding(modifiers);
  expect_aligned(decoder, modifiers, 4);
  check_multiply(decoder, wmma_families(), multiply.shape, types);
  multiply.d = types[0], multiply.a = types[1], multiply.b = types[2], multiply.c = types[3];
  decoder.require(!multiply.saturate || is_whole_number(multiply.a), ".satfinite needs integers");
  multiply.a_registers = static_cast<int>(wmma_registers(multiply.shape, 'a', multiply.a));
  multiply.b_registers = static_cast<int>(wmma_registers(multiply.shape, 'b', multiply.b));
  emit_multiply(decoder, multiply);
}

void wmma_rule(FunctionDecoder& decoder, const Modifiers& given) {
  Modifiers modifiers = given;
  if (modifiers.take("load")) return wmma_memory(decoder, modifiers, true);
  if (modifiers.take("store")) return wmma_memory(decoder, modifiers, false);
  decoder.require(modifiers.take("mma"), "expected .load, .store or .mma");
  wmma_multiply(decoder, modifiers);
}

constexpr NamedRule kRules[] = {
    {"ldmatrix", ldmatrix_rule, kSuffixType | kSuffixSpace},
    {"stmatrix", stmatrix_rule, kSuffixType | kSuffixSpace},
    {"movmatrix", movmatrix_rule, kSuffixType},
    {"mma", mma_rule, kSuffixType | kSuffixRounding},
    {"wmma", wmma_rule, kSuffixType | kSuffixSpace | kSuffixRounding},
};

}  // namespace

RuleTable matrix_rules() { return {std::begin(kRules), std::end(kRules)}; }

}  // namespace flopcuda::ptxvm
