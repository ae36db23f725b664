// Rules of the tensor-core instructions: ldmatrix, stmatrix, movmatrix, mma and wmma.
//
// All are warp-wide and aligned, so they are control instructions whose mask of members is the whole warp (c absent).
#include "decode/matrix.h"

#include <cstdio>

#include "decode/address_flags.h"
#include "decode/rules.h"

namespace flopcuda::ptxvm {
namespace {

using syntax::Operand;

void emit_collective(FunctionDecoder& decoder, const Instruction& instruction, HandlerKey key,
                     Space space = Space::kGeneric, Type fma = Type::kNone, int64_t macs = 0) {
  decoder.emit(instruction, key, space, fma, macs);
  decoder.pending().back().is_control = true;
}

bool take(std::vector<std::string_view>& words, std::string_view name) {
  for (auto word = words.begin(); word != words.end(); ++word) {
    if (*word != name) continue;
    words.erase(word);
    return true;
  }
  return false;
}

void set_address(FunctionDecoder& decoder, Instruction& instruction, const Operand& operand) {
  const FunctionDecoder::Address address = decoder.address(operand);
  decoder.require(!address.entry_parameter, "not a parameter's address");
  instruction.a = address.base;
  instruction.offset = address.offset;
  instruction.u[3] =
      static_cast<uint8_t>((address.wide ? kWideAddress : 0) | (address.frame_relative ? kFrameRelative : 0));
}

Space collective_space(const FunctionDecoder& decoder, const Modifiers& modifiers) {
  decoder.require(modifiers.spaces.size() <= 1, "expected one state space");
  const Space space = modifiers.spaces.empty() ? Space::kGeneric : modifiers.spaces[0];
  decoder.require(space == Space::kGeneric || space == Space::kShared || space == Space::kGlobal,
                  "state space not supported");
  return space;
}

// The registers of a fragment: one vector, or a single register.
std::vector<const Operand*> fragment(const Operand& operand) {
  std::vector<const Operand*> items;
  if (operand.kind == Operand::Kind::kVector) {
    for (const Operand& item : operand.items) items.push_back(&item);
  } else {
    items.push_back(&operand);
  }
  return items;
}

void use_fragment(FunctionDecoder& decoder, const Operand& operand, Type type, size_t count, std::vector<Ref>& out) {
  const std::vector<const Operand*> items = fragment(operand);
  decoder.require(items.size() == count, "a fragment has another number of registers");
  for (const Operand* item : items) out.push_back(decoder.use(*item, type));
}

void define_fragment(FunctionDecoder& decoder, const Operand& operand, Type type, size_t count, std::vector<Ref>& out) {
  const std::vector<const Operand*> items = fragment(operand);
  decoder.require(items.size() == count, "a fragment has another number of registers");
  for (const Operand* item : items) out.push_back(decoder.define(*item, type));
}

// ---- ldmatrix, stmatrix: u[0] matrices, u[1] transposed ----

void matrix_move(FunctionDecoder& decoder, const Modifiers& modifiers, bool load) {
  std::vector<std::string_view> words = modifiers.others;
  decoder.require(take(words, "m8n8"), "only .m8n8 is supported");
  Instruction instruction;
  instruction.u[1] = take(words, "trans");
  const int count = take(words, "x1") ? 1 : take(words, "x2") ? 2 : take(words, "x4") ? 4 : 0;
  decoder.require(count != 0 && words.empty(), "expected .x1, .x2 or .x4");
  decoder.require(modifiers.types.size() == 1 && modifiers.types[0] == Type::kB16, "only .b16 is supported");
  decoder.require(modifiers.has(kFlagSync) && modifiers.has(kFlagAligned), "expected .sync.aligned");
  const Space space = collective_space(decoder, modifiers);
  decoder.require(space != Space::kGlobal, "the matrix must be in shared memory");
  decoder.expect_operands(2);
  Extra* extra = decoder.new_extra();
  set_address(decoder, instruction, decoder.operand(load ? 1 : 0));
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

void movmatrix_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  std::vector<std::string_view> words = modifiers.others;
  decoder.require(take(words, "m8n8") && take(words, "trans") && words.empty(), "expected .m8n8.trans");
  decoder.require(modifiers.types.size() == 1 && modifiers.types[0] == Type::kB16, "only .b16 is supported");
  decoder.expect_operands(2);
  Instruction instruction;
  instruction.a = decoder.use(decoder.operand(1), Type::kB32);
  instruction.dst = decoder.define(decoder.operand(0), Type::kB32);
  emit_collective(decoder, instruction, {Op::kMovmatrix});
}

// ---- mma ----

bool read_shape(std::vector<std::string_view>& words, MatrixShape& shape) {
  for (auto word = words.begin(); word != words.end(); ++word) {
    char rest = 0;
    if (std::sscanf(std::string(*word).c_str(), "m%dn%dk%d%c", &shape.m, &shape.n, &shape.k, &rest) != 3) continue;
    words.erase(word);
    return true;
  }
  return false;
}

int element_bits(Type type) {
  switch (type) {
    case Type::kS4:
    case Type::kU4:
      return 4;
    default:
      return 8 * size_of(type);
  }
}

bool is_multiplicand(Type type) {
  return type == Type::kF16 || type == Type::kBF16 || type == Type::kTF32 || type == Type::kF64 || type == Type::kS8 ||
         type == Type::kU8 || type == Type::kS4 || type == Type::kU4;
}

bool is_whole_number(Type type) {
  return type == Type::kS8 || type == Type::kU8 || type == Type::kS4 || type == Type::kU4;
}

// Register type of a fragment of this element.
Type register_of(Type element) {
  return element == Type::kF64 ? Type::kF64 : element == Type::kF32 ? Type::kF32 : Type::kB32;
}

struct MmaShape {
  int m, n, k;
  int bits;  // of a multiplicand
};
constexpr MmaShape kMmaShapes[] = {
    {16, 8, 8, 16},  {16, 8, 16, 16}, {16, 8, 4, 32}, {16, 8, 8, 32}, {8, 8, 4, 64}, {16, 8, 4, 64}, {16, 8, 8, 64},
    {16, 8, 16, 64}, {8, 8, 16, 8},   {16, 8, 16, 8}, {16, 8, 32, 8}, {8, 8, 32, 4}, {16, 8, 32, 4}, {16, 8, 64, 4},
};

bool is_mma_shape(const MatrixShape& shape, Type element) {
  for (const MmaShape& known : kMmaShapes) {
    if (known.m == shape.m && known.n == shape.n && known.k == shape.k && known.bits == element_bits(element))
      return true;
  }
  return false;
}

void check_accumulators(const FunctionDecoder& decoder, Type element, Type d, Type c) {
  bool known = false;
  if (element == Type::kF16) known = (d == Type::kF16 || d == Type::kF32) && (c == Type::kF16 || c == Type::kF32);
  if (element == Type::kBF16 || element == Type::kTF32) known = d == Type::kF32 && c == Type::kF32;
  if (element == Type::kF64) known = d == Type::kF64 && c == Type::kF64;
  if (is_whole_number(element)) known = d == Type::kS32 && c == Type::kS32;
  decoder.require(known, "mma does not know these types together");
}

size_t accumulator_registers(int m, int n, Type type) {
  const int elements = m * n / kLanes;
  return static_cast<size_t>(type == Type::kF16 ? elements / 2 : elements);
}

void mma_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  std::vector<std::string_view> words = modifiers.others;
  MatrixShape shape;
  decoder.require(read_shape(words, shape), "expected a shape");
  decoder.require(take(words, "row") && take(words, "col"), "expected .row.col");
  const bool saturate = take(words, "satfinite");
  decoder.require(words.empty(), "unknown modifier of mma");
  decoder.require(!(modifiers.flags & ~(kFlagSync | kFlagAligned)) && modifiers.types.size() == 4,
                  "expected four types");
  const Type d = modifiers.types[0], a = modifiers.types[1], b = modifiers.types[2], c = modifiers.types[3];
  decoder.require(is_multiplicand(a) && element_bits(a) == element_bits(b) && (a == b || is_whole_number(a)),
                  "mma does not know these types together");
  decoder.require(is_mma_shape(shape, a), "mma does not know this shape for this type");
  check_accumulators(decoder, a, d, c);
  decoder.require(!saturate || is_whole_number(a), ".satfinite needs integers");
  decoder.expect_operands(4);
  const int per_register = element_bits(a) == 64 ? 1 : 32 / element_bits(a);
  const size_t a_registers = static_cast<size_t>(shape.m * shape.k / kLanes / per_register);
  const size_t b_registers = static_cast<size_t>(shape.k * shape.n / kLanes / per_register);
  Extra* extra = decoder.new_extra();
  use_fragment(decoder, decoder.operand(1), register_of(a), a_registers, extra->src);
  use_fragment(decoder, decoder.operand(2), register_of(b), b_registers, extra->src);
  use_fragment(decoder, decoder.operand(3), register_of(c), accumulator_registers(shape.m, shape.n, c), extra->src);
  define_fragment(decoder, decoder.operand(0), register_of(d), accumulator_registers(shape.m, shape.n, d), extra->dst);
  extra->values = pack_matrix(
      {shape, a, b, c, d, saturate, false, true, true, static_cast<int>(a_registers), static_cast<int>(b_registers)});
  Instruction instruction;
  instruction.extra = extra;
  emit_collective(decoder, instruction, {Op::kMma}, Space::kGeneric, a, int64_t{shape.m} * shape.n * shape.k / kLanes);
}

// ---- wmma: the layout of its fragments is the machine's own business ----

bool is_wmma_shape(const MatrixShape& s, Type element) {
  if (element == Type::kF64) return s.m == 8 && s.n == 8 && s.k == 4;
  if (element == Type::kTF32) return s.m == 16 && s.n == 16 && s.k == 8;
  const bool sixteen = (s.m == 16 && s.n == 16) || (s.m == 8 && s.n == 32) || (s.m == 32 && s.n == 8);
  return sixteen && s.k == 16 && (element_bits(element) == 16 || element_bits(element) == 8);
}

size_t wmma_registers(const MatrixShape& shape, char which, Type element) {
  if (which == 'c') return accumulator_registers(shape.m, shape.n, element);
  if (element == Type::kF16) return 8;
  const int elements = (which == 'a' ? shape.m : shape.n) * shape.k / kLanes;
  return static_cast<size_t>(element == Type::kF64 ? elements : elements * element_bits(element) / 32);
}

bool is_accumulator(Type type) {
  return type == Type::kF16 || type == Type::kF32 || type == Type::kF64 || type == Type::kS32;
}

void wmma_memory(FunctionDecoder& decoder, const Modifiers& modifiers, std::vector<std::string_view> words, bool load) {
  MatrixShape shape;
  decoder.require(read_shape(words, shape), "expected a shape");
  const bool row = take(words, "row");
  decoder.require(row || take(words, "col"), "expected .row or .col");
  const char which = load && take(words, "a")        ? 'a'
                     : load && take(words, "b")      ? 'b'
                     : take(words, load ? "c" : "d") ? 'c'
                                                     : 0;
  decoder.require(which != 0 && words.empty() && modifiers.types.size() == 1, "unknown modifier of wmma");
  const Type type = modifiers.types[0];
  decoder.require(
      which == 'c' ? is_accumulator(type) : is_multiplicand(type) && is_wmma_shape(shape, type) && size_of(type) >= 1,
      "wmma does not know this shape for this type");
  decoder.require(shape.m * shape.n >= 64 && shape.m * shape.n <= 256, "unknown shape of wmma");
  decoder.expect_operands(2, 3);
  Instruction instruction;
  set_address(decoder, instruction, decoder.operand(load ? 1 : 0));
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
  const Space space = collective_space(decoder, modifiers);
  instruction.u[2] = static_cast<uint8_t>(space);
  emit_collective(decoder, instruction, {load ? Op::kWmmaLoad : Op::kWmmaStore}, space);
}

void wmma_multiply(FunctionDecoder& decoder, const Modifiers& modifiers, std::vector<std::string_view> words) {
  MatrixShape shape;
  decoder.require(read_shape(words, shape), "expected a shape");
  decoder.require(words.size() >= 2, "expected two layouts");
  const bool saturate = words.size() == 3 && take(words, "satfinite");
  for (std::string_view word : words) decoder.require(word == "row" || word == "col", "unknown modifier of wmma");
  std::vector<Type> types = modifiers.types;
  if (types.size() == 2) types = {types[0], Type::kF16, Type::kF16, types[1]};
  decoder.require(types.size() == 4 && words.size() == 2, "expected two or four types");
  const Type d = types[0], a = types[1], b = types[2], c = types[3];
  decoder.require(a == b && is_multiplicand(a) && is_wmma_shape(shape, a),
                  "wmma does not know this shape for this type");
  check_accumulators(decoder, a, d, c);
  decoder.expect_operands(4);
  const size_t a_registers = wmma_registers(shape, 'a', a), b_registers = wmma_registers(shape, 'b', b);
  Extra* extra = decoder.new_extra();
  use_fragment(decoder, decoder.operand(1), register_of(a), a_registers, extra->src);
  use_fragment(decoder, decoder.operand(2), register_of(b), b_registers, extra->src);
  use_fragment(decoder, decoder.operand(3), register_of(c), wmma_registers(shape, 'c', c), extra->src);
  define_fragment(decoder, decoder.operand(0), register_of(d), wmma_registers(shape, 'c', d), extra->dst);
  extra->values = pack_matrix({shape, a, b, c, d, saturate, true, words[0] == "row", words[1] == "row",
                               static_cast<int>(a_registers), static_cast<int>(b_registers)});
  Instruction instruction;
  instruction.extra = extra;
  emit_collective(decoder, instruction, {Op::kMma}, Space::kGeneric, a, int64_t{shape.m} * shape.n * shape.k / kLanes);
}

void wmma_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  std::vector<std::string_view> words = modifiers.others;
  decoder.require(modifiers.has(kFlagSync) && modifiers.has(kFlagAligned), "expected .sync.aligned");
  if (take(words, "load")) return wmma_memory(decoder, modifiers, words, true);
  if (take(words, "store")) return wmma_memory(decoder, modifiers, words, false);
  decoder.require(take(words, "mma"), "expected .load, .store or .mma");
  wmma_multiply(decoder, modifiers, words);
}

constexpr NamedRule kRules[] = {
    {"ldmatrix", ldmatrix_rule}, {"stmatrix", stmatrix_rule}, {"movmatrix", movmatrix_rule},
    {"mma", mma_rule},           {"wmma", wmma_rule},
};

}  // namespace

RuleTable matrix_rules() { return {std::begin(kRules), std::end(kRules)}; }

}  // namespace flopcuda::ptxvm
