// Rules of movement between registers: mov, cvt, cvta, isspacep, and the warp-wide exchanges.
#include "decode/rules.h"

namespace flopcuda::ptxvm {
namespace {

using syntax::Operand;

Type bits_of_size(int size) {
  return size == 2 ? Type::kB16 : size == 4 ? Type::kB32 : size == 8 ? Type::kB64 : Type::kNone;
}

// ---- mov ----

struct Clock {
  std::string_view name;
  int size;
  uint8_t part;  // 0 cycles, 1 upper half of the cycles, 2 nanoseconds, 3 their upper half
};

constexpr Clock kClocks[] = {
    {"%clock", 4, 0},       {"%clock64", 8, 0},        {"%clock_hi", 4, 1},
    {"%globaltimer", 8, 2}, {"%globaltimer_lo", 4, 2}, {"%globaltimer_hi", 4, 3},
};

const Clock* clock_named(std::string_view name) {
  for (const Clock& entry : kClocks) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

void move_predicate(FunctionDecoder& decoder) {
  Instruction instruction;
  bool negated = false;
  instruction.a = decoder.use_predicate(decoder.operand(1), negated);
  instruction.u[0] = negated;
  instruction.dst = decoder.define_predicate(decoder.operand(0));
  decoder.emit(instruction, {Op::kMovPred});
}

void pack(FunctionDecoder& decoder, Type type) {
  const Operand& vector = decoder.operand(1);
  const size_t count = vector.items.size();
  decoder.require((count == 2 || count == 4) && size_of(type) / count >= 2, "cannot pack so many parts");
  const Type part = integer_of(size_of(type) / static_cast<int>(count));
  Extra* extra = decoder.new_extra();
  for (const Operand& item : vector.items) extra->src.push_back(decoder.use(item, bits_of_size(size_of(part))));
  Instruction instruction;
  instruction.extra = extra;
  instruction.dst = decoder.define(decoder.operand(0), type);
  decoder.emit(instruction, {Op::kPack, integer_of(size_of(type)), part});
}

void unpack(FunctionDecoder& decoder, Type type) {
  const Operand& vector = decoder.operand(0);
  const size_t count = vector.items.size();
  decoder.require((count == 2 || count == 4) && size_of(type) / count >= 2, "cannot unpack so many parts");
  const Type part = integer_of(size_of(type) / static_cast<int>(count));
  Instruction instruction;
  instruction.a = decoder.use_or_special(decoder.operand(1), type);
  Extra* extra = decoder.new_extra();
  for (const Operand& item : vector.items) {
    extra->dst.push_back(decoder.define_or_discard(item, bits_of_size(size_of(part))));
  }
  instruction.extra = extra;
  decoder.emit(instruction, {Op::kUnpack, integer_of(size_of(type)), part});
}

void move_address(FunctionDecoder& decoder, Type type, const FunctionDecoder::SymbolValue& symbol) {
  Instruction instruction;
  decoder.require(!is_float(type), "an address is no floating-point number");
  decoder.require(symbol.has_address, "an argument of a call has no address");
  instruction.dst = decoder.define(decoder.operand(0), type);
  const bool small = symbol.space == Space::kShared || symbol.space == Space::kLocal || symbol.space == Space::kParam;
  decoder.require(size_of(type) == 8 || (size_of(type) == 4 && small), "the address of this variable has 64 bits");
  if (symbol.frame_relative) {
    instruction.offset = static_cast<int64_t>(symbol.value);
    return decoder.emit(instruction, {Op::kLocalAddress, integer_of(size_of(type))});
  }
  instruction.a = decoder.constant(size_of(type), symbol.value);
  decoder.emit(instruction, {Op::kMov, integer_of(size_of(type))});
}

void mov_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  decoder.only_flags(modifiers, 0);
  decoder.require(modifiers.types.size() == 1, "expected one type");
  decoder.expect_operands(2);
  const Type type = modifiers.types[0];
  if (type == Type::kPred) return move_predicate(decoder);
  const bool plain = is_integer(type) || is_untyped(type) || type == Type::kF32 || type == Type::kF64;
  decoder.require(plain && integer_of(size_of(type)) != Type::kNone, "mov does not take this type");
  const Operand& source = decoder.operand(1);
  const bool packs = source.kind == Operand::Kind::kVector;
  const bool unpacks = decoder.operand(0).kind == Operand::Kind::kVector;
  decoder.require(is_untyped(type) || !(packs || unpacks), "a vector is moved as .b32 or .b64");
  if (packs) return pack(decoder, type);
  if (unpacks) return unpack(decoder, type);
  FunctionDecoder::SymbolValue symbol;
  if (decoder.symbol_value(source, symbol)) return move_address(decoder, type, symbol);
  Instruction instruction;
  if (const Clock* clock = clock_named(source.name); clock && source.kind == Operand::Kind::kName) {
    decoder.require(clock->size == size_of(type) && !is_float(type), "this clock has another type");
    instruction.u[0] = clock->part;
    instruction.dst = decoder.define(decoder.operand(0), type);
    return decoder.emit(instruction, {Op::kReadClock, integer_of(size_of(type))});
  }
  instruction.a = decoder.use_or_special(source, type);
  instruction.dst = decoder.define(decoder.operand(0), type);
  decoder.emit(instruction, {Op::kMov, integer_of(size_of(type))});
}

// ---- cvt ----

bool convertible(Type type) { return is_integer(type) || (is_float(type) && type != Type::kTF32); }

bool is_pair(Type type) {
  return type == Type::kF16x2 || type == Type::kBF16x2 || type == Type::kE4M3x2 || type == Type::kE5M2x2;
}

// Two sources become the halves of one register; the first is the upper half.
void convert_pair(FunctionDecoder& decoder, const Modifiers& modifiers, bool satfinite) {
  const Type to = modifiers.types[0];
  const Type from = modifiers.types[1];
  decoder.only_flags(modifiers, kFlagRelu);
  const bool to_eight_bits = to == Type::kE4M3x2 || to == Type::kE5M2x2;
  const bool nearest = modifiers.rounding == Rounding::kNearest && !modifiers.round_to_integer;
  const bool to_zero = modifiers.rounding == Rounding::kZero && !modifiers.round_to_integer;
  decoder.require(nearest || (to_zero && from == Type::kF32 && !to_eight_bits), "expected .rn, or .rz of .f32");
  decoder.require(satfinite || !to_eight_bits, "8-bit floats need .satfinite");
  Instruction instruction;
  if (from == Type::kF32) {
    decoder.expect_operands(3);
    instruction.a = decoder.use(decoder.operand(1), Type::kF32);
    instruction.b = decoder.use(decoder.operand(2), Type::kF32);
  } else {
    const bool widening = to == Type::kF16x2 && (from == Type::kE4M3x2 || from == Type::kE5M2x2);
    decoder.require((to_eight_bits && from == Type::kF16x2) || (widening && !satfinite),
                    "cvt does not know this pair of types");
    decoder.expect_operands(2);
    instruction.a = decoder.use(decoder.operand(1), from);
  }
  instruction.dst = decoder.define(decoder.operand(0), to);
  instruction.u[0] = static_cast<uint8_t>(*modifiers.rounding);
  instruction.u[1] = satfinite;
  const uint8_t variant = modifiers.has(kFlagRelu) ? kRelu : 0;
  instruction.offset = static_cast<int64_t>(to) | static_cast<int64_t>(from) << 8;
  decoder.emit(instruction, {Op::kConvertPack2, Type::kNone, Type::kNone, variant});
}

void check_conversion_rounding(const FunctionDecoder& decoder, const Modifiers& modifiers, Type to, Type from) {
  const bool given = modifiers.rounding.has_value();
  if (is_integer(to) && is_integer(from)) return decoder.require(!given, "integers do not round");
  if (is_integer(to)) return decoder.require(given && modifiers.round_to_integer, "expected an integer rounding mode");
  if (is_integer(from)) return decoder.require(given && !modifiers.round_to_integer, "expected a rounding mode");
  const bool narrows =
      to == Type::kTF32 || size_of(to) < size_of(from) || (size_of(to) == 2 && size_of(from) == 2 && to != from);
  if (narrows) return decoder.require(given && !modifiers.round_to_integer, "expected a rounding mode");
  // Between equal types a rounding mode rounds to an integral value; widening is exact.
  decoder.require(!given || (to == from && modifiers.round_to_integer), "this rounding does not apply here");
}

// Whether an operand may lie in a register of this size: an integer in a wider one, and .f32 when no half is involved.
bool fits(Type type, int size, Type other) {
  const auto whole = [](Type t) { return is_integer(t) || t == Type::kF32 || t == Type::kF64; };
  return size == size_of(type) || is_integer(type) || (whole(type) && whole(other));
}

// Whether an integer type has every value of another.
bool holds_all_of(Type to, Type from) {
  if (!is_integer(to) || !is_integer(from)) return false;
  return is_signed(to) == is_signed(from) ? size_of(to) >= size_of(from) : is_signed(to) && size_of(to) > size_of(from);
}

void check_conversion_flags(const FunctionDecoder& decoder, const Modifiers& modifiers, Type to, Type from,
                            bool satfinite) {
  const bool single = to == Type::kF32 || from == Type::kF32;
  decoder.require(single || !modifiers.has(kFlagFtz), ".ftz does not apply to these types");
  decoder.require(!modifiers.has(kFlagSat) || (to != Type::kBF16 && !holds_all_of(to, from)),
                  ".sat changes nothing between these types");
  if (!modifiers.has(kFlagRelu) && !satfinite) return;
  const bool narrows = from == Type::kF32 && (to == Type::kF16 || to == Type::kBF16 || to == Type::kTF32);
  const Rounding rounding = modifiers.rounding.value_or(Rounding::kUp);
  const bool nearest_or_zero = rounding == Rounding::kNearest || rounding == Rounding::kZero;
  decoder.require(narrows && !modifiers.has(kFlagFtz | kFlagSat) && (nearest_or_zero || !modifiers.has(kFlagRelu)),
                  ".relu and .satfinite do not apply here");
}

void cvt_rule(FunctionDecoder& decoder, const Modifiers& given) {
  Modifiers modifiers = given;
  if (!modifiers.others.empty() && modifiers.others[0] == "pack") decoder.fail("cvt.pack is not supported");
  const bool satfinite = modifiers.take("satfinite");
  decoder.require(modifiers.types.size() == 2, "expected two types");
  const Type to = modifiers.types[0];
  const Type from = modifiers.types[1];
  if (is_pair(to)) return convert_pair(decoder, modifiers, satfinite);
  decoder.require((convertible(to) || to == Type::kTF32) && convertible(from), "cvt does not know this pair of types");
  decoder.only_flags(modifiers, kFlagFtz | kFlagSat | kFlagRelu);
  decoder.require(to != Type::kTF32 || (from == Type::kF32 && modifiers.rounding), "tf32 comes from f32, rounded");
  check_conversion_rounding(decoder, modifiers, to, from);
  check_conversion_flags(decoder, modifiers, to, from, satfinite);
  decoder.require(modifiers.rounding != Rounding::kAway || to == Type::kTF32, ".rna applies to tf32");
  decoder.expect_operands(2);
  Instruction instruction;
  int to_size = 0, from_size = 0;
  instruction.a = decoder.use_or_special_at_least(decoder.operand(1), from, from_size);
  instruction.dst = decoder.define_at_least(decoder.operand(0), to, to_size);
  decoder.require(fits(from, from_size, to) && fits(to, to_size, from),
                  "a register has another width than its operand");
  instruction.u[0] = static_cast<uint8_t>(modifiers.rounding.value_or(Rounding::kNearest));
  instruction.u[1] = static_cast<uint8_t>((modifiers.round_to_integer ? 1 : 0) | (satfinite ? 2 : 0));
  instruction.u[2] = static_cast<uint8_t>(to_size);
  instruction.u[3] = static_cast<uint8_t>(from_size);
  instruction.offset = static_cast<int64_t>(to) | static_cast<int64_t>(from) << 8;
  uint8_t variant = 0;
  if (modifiers.has(kFlagFtz)) variant |= kFtz;
  if (modifiers.has(kFlagSat)) variant |= kSat;
  if (modifiers.has(kFlagRelu)) variant |= kRelu;
  const Rounding usual = is_integer(to) && is_float(from) ? Rounding::kZero : Rounding::kNearest;
  const bool plain = variant == 0 && !satfinite && to_size == size_of(to) && from_size == size_of(from) &&
                     modifiers.rounding.value_or(usual) == usual && !(to == from && modifiers.round_to_integer);
  if (plain) return decoder.emit(instruction, {Op::kConvert, to, from});
  decoder.emit(instruction, {Op::kConvert, Type::kNone, Type::kNone, variant});
}

// ---- addresses ----

uint64_t window(Space space) {
  switch (space) {
    case Space::kShared:
      return kSharedWindow;
    case Space::kLocal:
      return kLocalWindow;
    case Space::kParam:
      return kParamWindow;
    default:
      return 0;
  }
}

void cvta_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  decoder.only_flags(modifiers, kFlagToSpace);
  decoder.require(modifiers.spaces.size() == 1 && modifiers.types.size() == 1, "expected one state space and one type");
  decoder.require(modifiers.types[0] == Type::kU64, "generic addresses are .u64");
  decoder.expect_operands(2);
  const bool to = modifiers.has(kFlagToSpace);
  Instruction instruction;
  instruction.dst = decoder.define(decoder.operand(0), Type::kU64);
  FunctionDecoder::SymbolValue symbol;
  const uint64_t base = window(modifiers.spaces[0]);
  if (!to && decoder.symbol_value(decoder.operand(1), symbol)) {
    decoder.require(symbol.space == modifiers.spaces[0], "the variable is in another state space");
    decoder.require(symbol.has_address, "an argument of a call has no address");
    if (symbol.frame_relative) {  // parameters of a device function too
      instruction.offset = static_cast<int64_t>(symbol.value + window(Space::kLocal));
      return decoder.emit(instruction, {Op::kLocalAddress, Type::kU64});
    }
    instruction.a = decoder.constant(8, symbol.value + base);
    return decoder.emit(instruction, {Op::kMov, Type::kU64});
  }
  instruction.a = decoder.use(decoder.operand(1), Type::kU64);
  instruction.offset = static_cast<int64_t>(base);
  decoder.emit(instruction, {to ? Op::kFromWindow : Op::kToWindow, Type::kU64});
}

void isspacep_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  decoder.only_flags(modifiers, 0);
  decoder.require(modifiers.spaces.size() == 1, "expected one state space");
  decoder.expect_operands(2);
  Instruction instruction;
  instruction.a = decoder.use(decoder.operand(1), Type::kU64);
  instruction.dst = decoder.define_predicate(decoder.operand(0));
  instruction.u[0] = static_cast<uint8_t>(modifiers.spaces[0]);
  decoder.emit(instruction, {Op::kIsSpace, Type::kU64});
}

// ---- warp-wide exchanges: control, since lanes may have to wait for others. c is the mask of members. ----

void emit_collective(FunctionDecoder& decoder, const Instruction& instruction, HandlerKey key) {
  decoder.emit(instruction, key);
  decoder.pending().back().is_control = true;
}

void expect_sync(FunctionDecoder& decoder, const Modifiers& modifiers, size_t types, uint64_t flags = 0) {
  decoder.expect_modifiers(modifiers, types, kFlagSync | flags);
  decoder.require(modifiers.has(kFlagSync), "only the form with .sync is supported");
}

// shfl.sync.mode.b32 d|p, a, b, c, mask: u[0] mode; extra holds c and p.
void shfl_rule(FunctionDecoder& decoder, const Modifiers& given) {
  constexpr std::string_view kModes[] = {"up", "down", "bfly", "idx"};
  Modifiers modifiers = given;
  Instruction instruction;
  size_t mode = 0;
  while (mode < std::size(kModes) && !modifiers.take(kModes[mode])) ++mode;
  decoder.require(mode < std::size(kModes), "expected .up, .down, .bfly or .idx");
  expect_sync(decoder, modifiers, 1);
  decoder.require(modifiers.types[0] == Type::kB32, "shfl needs .b32");
  decoder.expect_operands(5);
  Extra* extra = decoder.new_extra();
  instruction.a = decoder.use(decoder.operand(1), Type::kB32);
  instruction.b = decoder.use(decoder.operand(2), Type::kB32);
  extra->src.push_back(decoder.use(decoder.operand(3), Type::kB32));
  instruction.c = decoder.use(decoder.operand(4), Type::kU32);
  const Operand& result = decoder.operand(0);
  if (result.kind == Operand::Kind::kPair) {
    instruction.dst = decoder.define(result.items[0], Type::kB32);
    extra->dst.push_back(decoder.define_predicate_or_discard(result.items[1]));
  } else {
    instruction.dst = decoder.define(result, Type::kB32);
  }
  instruction.u[0] = static_cast<uint8_t>(mode);
  instruction.extra = extra;
  emit_collective(decoder, instruction, {Op::kShfl, Type::kU32});
}

// vote.sync: u[0] 0 all, 1 any, 2 uni, 3 ballot; u[1] negation of the source.
void vote_rule(FunctionDecoder& decoder, const Modifiers& given) {
  constexpr std::string_view kModes[] = {"all", "any", "uni", "ballot"};  // .uni is read as a flag
  Modifiers modifiers = given;
  size_t mode = 0;
  while (mode < 4 && !modifiers.take(kModes[mode])) ++mode;
  if (mode == 4 && modifiers.has(kFlagUni)) {
    mode = 2;
    modifiers.flags &= ~kFlagUni;
  }
  decoder.require(mode < 4, "expected .all, .any, .uni or .ballot");
  expect_sync(decoder, modifiers, 1);
  decoder.require(modifiers.types[0] == (mode == 3 ? Type::kB32 : Type::kPred), "vote gives .pred, vote.ballot .b32");
  decoder.expect_operands(3);
  Instruction instruction;
  bool negated = false;
  instruction.a = decoder.use_predicate(decoder.operand(1), negated);
  instruction.c = decoder.use(decoder.operand(2), Type::kU32);
  instruction.dst =
      mode == 3 ? decoder.define(decoder.operand(0), Type::kB32) : decoder.define_predicate(decoder.operand(0));
  instruction.u[0] = static_cast<uint8_t>(mode);
  instruction.u[1] = negated;
  emit_collective(decoder, instruction, {Op::kVote});
}

void match_rule(FunctionDecoder& decoder, const Modifiers& given) {
  Modifiers modifiers = given;
  const bool any = modifiers.take("any");
  const bool all = modifiers.take("all");
  decoder.require(any != all, "expected .any or .all");
  expect_sync(decoder, modifiers, 1);
  decoder.require(modifiers.types[0] == Type::kB32 || modifiers.types[0] == Type::kB64, "match needs .b32 or .b64");
  decoder.expect_operands(3);
  Instruction instruction;
  Extra* extra = decoder.new_extra();
  instruction.a = decoder.use(decoder.operand(1), modifiers.types[0]);
  instruction.c = decoder.use(decoder.operand(2), Type::kU32);
  const Operand& result = decoder.operand(0);
  if (result.kind == Operand::Kind::kPair) {
    decoder.require(all, "only match.all gives a predicate");
    instruction.dst = decoder.define_or_discard(result.items[0], Type::kU32);
    extra->dst.push_back(decoder.define_predicate_or_discard(result.items[1]));
  } else {
    instruction.dst = decoder.define(result, Type::kU32);
  }
  instruction.u[0] = all;
  instruction.extra = extra;
  emit_collective(decoder, instruction, {Op::kMatch, integer_of(size_of(modifiers.types[0]))});
}

// redux.sync: u[0] 0 add, 1 min, 2 max, 3 and, 4 or, 5 xor; of floats u[1] is .abs and u[2] .NaN.
void redux_rule(FunctionDecoder& decoder, const Modifiers& given) {
  constexpr std::string_view kArithmetic[] = {"add", "min", "max"};
  constexpr uint64_t kLogic[] = {kFlagAnd, kFlagOr, kFlagXor};
  Modifiers modifiers = given;
  size_t which = 0;
  while (which < 3 && !modifiers.take(kArithmetic[which])) ++which;
  if (which == 3) {
    while (which < 6 && !modifiers.has(kLogic[which - 3])) ++which;
  }
  decoder.require(which < 6, "unknown reduction");
  const Type type = modifiers.types.empty() ? Type::kNone : modifiers.types[0];
  const bool whole = type == Type::kU32 || type == Type::kS32, real = type == Type::kF32;
  decoder.require(which >= 3 ? type == Type::kB32 : whole || (real && which != 0), "redux does not take this type");
  expect_sync(decoder, modifiers, 1, which >= 3 ? kLogic[which - 3] : real ? kFlagAbs | kFlagNan : 0);
  decoder.expect_operands(3);
  Instruction instruction;
  const Type in_register = type == Type::kB32 ? Type::kU32 : type;
  instruction.a = decoder.use(decoder.operand(1), in_register);
  instruction.c = decoder.use(decoder.operand(2), Type::kU32);
  instruction.dst = decoder.define(decoder.operand(0), in_register);
  instruction.u[0] = static_cast<uint8_t>(which);
  instruction.u[1] = modifiers.has(kFlagAbs);
  instruction.u[2] = modifiers.has(kFlagNan);
  emit_collective(decoder, instruction, {Op::kRedux, in_register});
}

void elect_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  expect_sync(decoder, modifiers, 0);
  decoder.expect_operands(2);
  const Operand& result = decoder.operand(0);
  decoder.require(result.kind == Operand::Kind::kPair, "expected d|p");
  Instruction instruction;
  Extra* extra = decoder.new_extra();
  instruction.c = decoder.use(decoder.operand(1), Type::kU32);
  instruction.dst = decoder.define_or_discard(result.items[0], Type::kB32);
  extra->dst.push_back(decoder.define_predicate(result.items[1]));
  instruction.extra = extra;
  emit_collective(decoder, instruction, {Op::kElect});
}

void activemask_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  decoder.expect_modifiers(modifiers, 1, 0);
  decoder.require(modifiers.types[0] == Type::kB32, "activemask gives .b32");
  decoder.expect_operands(1);
  Instruction instruction;
  instruction.dst = decoder.define(decoder.operand(0), Type::kB32);
  decoder.emit(instruction, {Op::kActiveMask, Type::kU32});
}

constexpr NamedRule kRules[] = {
    {"mov", mov_rule, kSuffixType},
    {"cvt", cvt_rule, kSuffixType | kSuffixRounding},
    {"cvta", cvta_rule, kSuffixType | kSuffixSpace},
    {"isspacep", isspacep_rule, kSuffixSpace},
    {"shfl", shfl_rule, kSuffixType},
    {"vote", vote_rule, kSuffixType},
    {"match", match_rule, kSuffixType},
    {"redux", redux_rule, kSuffixType},
    {"elect", elect_rule, 0},
    {"activemask", activemask_rule, kSuffixType},
};

}  // namespace

RuleTable data_rules() { return {std::begin(kRules), std::end(kRules)}; }

}  // namespace flopcuda::ptxvm
