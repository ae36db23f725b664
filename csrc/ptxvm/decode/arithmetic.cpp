// Rules of the arithmetic and logic instructions: mostly one table of operations, types and modifiers.
#include <array>

#include "decode/rules.h"
#include "decode/type_sets.h"

namespace flopcuda::ptxvm {
namespace {

enum class Roundings : uint8_t { kNone, kOptionalNearest, kOptionalAny, kRequiredNearest, kRequiredAny, kUnlessApprox };

// One form of an operation. `operands`, result first: d result, t source of the main type, U 32-bit result, u 32-bit
// source, o the same of which 8 bits count, W result and w source of twice the width.
struct Form {
  std::string_view opcode;
  Op op;
  const char* operands;
  uint64_t types;
  uint64_t flags;
  Roundings roundings = Roundings::kNone;
};

constexpr Form kForms[] = {
    {"add", Op::kAdd, "dtt", kIntegers, 0},
    {"add", Op::kAdd, "dtt", kPacked, 0},
    {"add", Op::kAdd, "dtt", kF32, kFlagFtz | kFlagSat, Roundings::kOptionalAny},
    {"add", Op::kAdd, "dtt", kF64, 0, Roundings::kOptionalAny},
    {"add", Op::kAdd, "dtt", kHalf, kFlagFtz | kFlagSat, Roundings::kOptionalNearest},
    {"add", Op::kAdd, "dtt", kBfloat, 0, Roundings::kOptionalNearest},
    {"add", Op::kAdd, "dtt", kF32x2Only, kFlagFtz, Roundings::kOptionalAny},
    {"sub", Op::kSub, "dtt", kIntegers, 0},
    {"sub", Op::kSub, "dtt", kF32, kFlagFtz | kFlagSat, Roundings::kOptionalAny},
    {"sub", Op::kSub, "dtt", kF64, 0, Roundings::kOptionalAny},
    {"sub", Op::kSub, "dtt", kHalf, kFlagFtz | kFlagSat, Roundings::kOptionalNearest},
    {"sub", Op::kSub, "dtt", kBfloat, 0, Roundings::kOptionalNearest},
    {"sub", Op::kSub, "dtt", kF32x2Only, kFlagFtz, Roundings::kOptionalAny},
    {"mul", Op::kMulLo, "dtt", kF32, kFlagFtz | kFlagSat, Roundings::kOptionalAny},
    {"mul", Op::kMulLo, "dtt", kF64, 0, Roundings::kOptionalAny},
    {"mul", Op::kMulLo, "dtt", kHalf, kFlagFtz | kFlagSat, Roundings::kOptionalNearest},
    {"mul", Op::kMulLo, "dtt", kBfloat, 0, Roundings::kOptionalNearest},
    {"mul", Op::kMulLo, "dtt", kF32x2Only, kFlagFtz, Roundings::kOptionalAny},
    {"mad", Op::kFma, "dttt", kF32, kFlagFtz | kFlagSat, Roundings::kRequiredAny},
    {"mad", Op::kFma, "dttt", kF64, 0, Roundings::kRequiredAny},
    {"fma", Op::kFma, "dttt", kF32, kFlagFtz | kFlagSat, Roundings::kRequiredAny},
    {"fma", Op::kFma, "dttt", kF64, 0, Roundings::kRequiredAny},
    {"fma", Op::kFma, "dttt", kHalf, kFlagFtz | kFlagSat | kFlagRelu, Roundings::kRequiredNearest},
    {"fma", Op::kFma, "dttt", kBfloat, kFlagRelu, Roundings::kRequiredNearest},
    {"fma", Op::kFma, "dttt", kF32x2Only, kFlagFtz, Roundings::kRequiredAny},
    {"div", Op::kDiv, "dtt", kIntegers, 0},
    {"div", Op::kDiv, "dtt", kF32, kFlagFtz | kFlagApprox | kFlagFull, Roundings::kUnlessApprox},
    {"div", Op::kDiv, "dtt", kF64, 0, Roundings::kRequiredAny},
    {"rem", Op::kRem, "dtt", kIntegers, 0},
    {"rcp", Op::kRcp, "dt", kF32, kFlagFtz | kFlagApprox, Roundings::kUnlessApprox},
    {"rcp", Op::kRcp, "dt", kF64, kFlagFtz | kFlagApprox, Roundings::kUnlessApprox},
    {"sqrt", Op::kSqrt, "dt", kF32, kFlagFtz | kFlagApprox, Roundings::kUnlessApprox},
    {"sqrt", Op::kSqrt, "dt", kF64, 0, Roundings::kRequiredAny},
    {"rsqrt", Op::kRsqrt, "dt", kF32 | kF64, kFlagFtz | kFlagApprox},
    {"sin", Op::kSin, "dt", kF32, kFlagFtz | kFlagApprox},
    {"cos", Op::kCos, "dt", kF32, kFlagFtz | kFlagApprox},
    {"lg2", Op::kLg2, "dt", kF32, kFlagFtz | kFlagApprox},
    {"ex2", Op::kEx2, "dt", kF32 | kBfloat, kFlagFtz | kFlagApprox},
    {"ex2", Op::kEx2, "dt", kHalf, kFlagApprox},
    {"tanh", Op::kTanh, "dt", kF32 | kHalf | kBfloat, kFlagApprox},
    {"abs", Op::kAbs, "dt", kSigned, 0},
    {"abs", Op::kAbs, "dt", kF32 | kHalf, kFlagFtz},
    {"abs", Op::kAbs, "dt", kF64 | kBfloat, 0},
    {"neg", Op::kNeg, "dt", kSigned, 0},
    {"neg", Op::kNeg, "dt", kF32 | kHalf, kFlagFtz},
    {"neg", Op::kNeg, "dt", kF64 | kBfloat, 0},
    {"min", Op::kMin, "dtt", bit(Type::kS32) | bit(Type::kS16x2), kFlagRelu},
    {"min", Op::kMin, "dtt", kIntegers | kPacked, 0},
    {"min", Op::kMin, "dtt", kF32 | kHalf, kFlagFtz | kFlagNan | kFlagXorSign},
    {"min", Op::kMin, "dtt", kBfloat, kFlagNan | kFlagXorSign},
    {"min", Op::kMin, "dtt", kF64, 0},
    {"max", Op::kMax, "dtt", bit(Type::kS32) | bit(Type::kS16x2), kFlagRelu},
    {"max", Op::kMax, "dtt", kIntegers | kPacked, 0},
    {"max", Op::kMax, "dtt", kF32 | kHalf, kFlagFtz | kFlagNan | kFlagXorSign},
    {"max", Op::kMax, "dtt", kBfloat, kFlagNan | kFlagXorSign},
    {"max", Op::kMax, "dtt", kF64, 0},
    {"mul24", Op::kMul24Lo, "dtt", kInt32, kFlagLo},
    {"mul24", Op::kMul24Hi, "dtt", kInt32, kFlagHi},
    {"mad24", Op::kMad24Lo, "dttt", kInt32, kFlagLo},
    {"mad24", Op::kMad24Hi, "dttt", bit(Type::kS32), kFlagHi | kFlagSat},
    {"mad24", Op::kMad24Hi, "dttt", bit(Type::kU32), kFlagHi},
    {"sad", Op::kSad, "dttt", kIntegers, 0},
    {"popc", Op::kPopc, "Ut", kBits32Or64, 0},
    {"clz", Op::kClz, "Ut", kBits32Or64, 0},
    {"bfind", Op::kBfind, "Ut", kInt32 | kInt64, 0},
    {"bfind", Op::kBfindShift, "Ut", kInt32 | kInt64, kFlagShiftAmount},
    {"fns", Op::kFns, "dtuu", bit(Type::kB32), 0},
    {"brev", Op::kBrev, "dt", kBits32Or64, 0},
    {"bfe", Op::kBfe, "dtoo", kInt32 | kInt64, 0},
    {"bfi", Op::kBfi, "dttoo", kBits32Or64, 0},
    {"szext", Op::kSzext, "dtu", kInt32, kFlagClamp | kFlagWrap},
    {"bmsk", Op::kBmsk, "duu", bit(Type::kB32), kFlagClamp | kFlagWrap},
    {"and", Op::kAnd, "dtt", kBits, 0},
    {"or", Op::kOr, "dtt", kBits, 0},
    {"xor", Op::kXor, "dtt", kBits, 0},
    {"not", Op::kNot, "dt", kBits, 0},
    {"cnot", Op::kCnot, "dt", kBits, 0},
    {"shl", Op::kShl, "dtu", kBits, 0},
    {"shr", Op::kShr, "dtu", kBits | kIntegers, 0},
    {"copysign", Op::kCopysign, "dtt", kF32 | kF64, 0},
};

// Without a sign to look at, one handler serves the signed, the unsigned and the untyped form.
Type handler_type(Op op, Type type) {
  const bool signless = op == Op::kAdd || op == Op::kSub || op == Op::kMulLo || op == Op::kMadLo;
  switch (type) {
    case Type::kB16:
      return Type::kU16;
    case Type::kB32:
      return Type::kU32;
    case Type::kB64:
      return Type::kU64;
    case Type::kS16:
      return signless ? Type::kU16 : type;
    case Type::kS32:
      return signless ? Type::kU32 : type;
    case Type::kS64:
      return signless ? Type::kU64 : type;
    case Type::kS16x2:
      return op == Op::kAdd ? Type::kU16x2 : type;
    default:
      return type;
  }
}

Type wide(Type type) {
  switch (type) {
    case Type::kU16:
      return Type::kU32;
    case Type::kS16:
      return Type::kS32;
    case Type::kU32:
      return Type::kU64;
    default:
      return Type::kS64;
  }
}

uint8_t variant_of(const Modifiers& modifiers) {
  uint8_t variant = 0;
  if (modifiers.has(kFlagFtz)) variant |= kFtz;
  if (modifiers.has(kFlagSat)) variant |= kSat;
  if (modifiers.has(kFlagRelu)) variant |= kRelu;
  if (modifiers.has(kFlagNan)) variant |= kPropagateNan;
  if (modifiers.has(kFlagXorSign)) variant |= kXorSign;
  if (modifiers.has(kFlagApprox | kFlagFull)) variant |= kApprox;
  if (modifiers.rounding && *modifiers.rounding != Rounding::kNearest) variant |= kDirected;
  return variant;
}

uint8_t rounding_byte(const Modifiers& modifiers) {
  return static_cast<uint8_t>(modifiers.rounding.value_or(Rounding::kNearest));
}

void check_rounding(const FunctionDecoder& decoder, const Modifiers& modifiers, Roundings allowed) {
  const bool given = modifiers.rounding.has_value();
  const bool approximate = modifiers.has(kFlagApprox | kFlagFull);
  decoder.require(!given || (!modifiers.round_to_integer && *modifiers.rounding != Rounding::kAway),
                  "this rounding does not apply here");
  switch (allowed) {
    case Roundings::kNone:
      return decoder.require(!given, "this instruction does not round");
    case Roundings::kRequiredNearest:
    case Roundings::kOptionalNearest:
      decoder.require(given || allowed == Roundings::kOptionalNearest, "a rounding mode is required");
      return decoder.require(!given || *modifiers.rounding == Rounding::kNearest, "only .rn applies here");
    case Roundings::kRequiredAny:
      return decoder.require(given, "a rounding mode is required");
    case Roundings::kUnlessApprox:
      return decoder.require(given != approximate, "expected a rounding mode or .approx");
    case Roundings::kOptionalAny:
      return;
  }
}

void check_octet(const FunctionDecoder& decoder, const syntax::Operand& operand) {
  if (operand.kind != syntax::Operand::Kind::kInteger) return;
  decoder.require(operand.bits <= 255, "this constant is from 0 to 255");
}

// Operands by the letters of Form::operands; sources go to a, b, c and, where there is a fourth, to extra.
void emit_form(FunctionDecoder& decoder, const Form& form, Type type, const Modifiers& modifiers) {
  const std::string_view spec = form.operands;
  decoder.expect_operands(spec.size());
  Instruction instruction;
  std::array<Ref, 4> sources{kNoRef, kNoRef, kNoRef, kNoRef};
  for (size_t i = 1; i < spec.size(); ++i) {
    const bool word = spec[i] == 'u' || spec[i] == 'o';
    const Type wanted = word ? Type::kU32 : spec[i] == 'w' ? wide(type) : type;
    if (spec[i] == 'o') check_octet(decoder, decoder.operand(i));
    sources[i - 1] = decoder.use(decoder.operand(i), wanted);
  }
  const Type result = spec[0] == 'U' ? Type::kU32 : spec[0] == 'W' ? wide(type) : type;
  instruction.dst = decoder.define(decoder.operand(0), result);
  instruction.a = sources[0];
  instruction.b = sources[1];
  instruction.c = sources[2];
  if (spec.size() == 5) {
    Extra* extra = decoder.new_extra();
    extra->src.push_back(sources[3]);
    instruction.extra = extra;
  }
  instruction.u[0] = rounding_byte(modifiers);
  instruction.u[1] = modifiers.has(kFlagClamp);
  instruction.u[2] = modifiers.has(kFlagFull);
  const bool multiply_add = form.op == Op::kFma;
  const bool pair = type == Type::kF16x2 || type == Type::kBF16x2 || type == Type::kF32x2;
  const Type element = type == Type::kF16x2    ? Type::kF16
                       : type == Type::kBF16x2 ? Type::kBF16
                       : type == Type::kF32x2  ? Type::kF32
                                               : type;
  decoder.emit(instruction, {form.op, handler_type(form.op, type), Type::kNone, variant_of(modifiers)}, Space::kGeneric,
               multiply_add ? element : Type::kNone, multiply_add ? (pair ? 2 : 1) : 0);
}

void check_special_flags(const FunctionDecoder& decoder, const Form& form, Type type, const Modifiers& modifiers) {
  const bool always_approximate = form.op == Op::kRsqrt || form.op == Op::kSin || form.op == Op::kCos ||
                                  form.op == Op::kLg2 || form.op == Op::kEx2 || form.op == Op::kTanh;
  if (always_approximate) decoder.require(modifiers.has(kFlagApprox), "expected .approx");
  const bool extends = form.op == Op::kSzext || form.op == Op::kBmsk;
  if (extends) decoder.require(modifiers.has(kFlagClamp | kFlagWrap), "expected .clamp or .wrap");
  const bool always_flushes = (form.op == Op::kEx2 && (kBfloat & bit(type))) ||
                              (form.op == Op::kRcp && type == Type::kF64 && modifiers.has(kFlagApprox));
  if (always_flushes) decoder.require(modifiers.has(kFlagFtz), "expected .ftz");
}

void table_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  const Type type = main_type(decoder, modifiers);
  bool takes_type = false;
  for (const Form& form : kForms) {
    if (form.opcode != decoder.source().opcode || !(form.types & bit(type))) continue;
    const uint64_t allowed = form.flags | (modifiers.has(kFlagXorSign) ? uint64_t{kFlagAbs} : 0);
    decoder.require(!modifiers.has(kFlagXorSign) || modifiers.has(kFlagAbs), ".xorsign is followed by .abs");
    const uint64_t choice = form.flags & (kFlagLo | kFlagHi | kFlagShiftAmount);
    takes_type = true;
    if (choice ? !modifiers.has(choice) : modifiers.has(kFlagShiftAmount)) continue;
    decoder.only_flags(modifiers, allowed);
    check_special_flags(decoder, form, type, modifiers);
    check_rounding(decoder, modifiers, form.roundings);
    return emit_form(decoder, form, type, modifiers);
  }
  decoder.require(!takes_type, "expected .lo or .hi");
  decoder.fail("this instruction does not take the type ." + std::string(name_of(type)));
}

bool is_whole(Type type) { return is_integer(type) && size_of(type) >= 2; }

// add.cc, addc, sub.cc, subc: u[0] says whether the carry is read, u[1] whether it is written.
void carry_rule(FunctionDecoder& decoder, const Modifiers& modifiers, Op op, bool reads) {
  const Type type = main_type(decoder, modifiers);
  decoder.only_flags(modifiers, kFlagCc);
  check_rounding(decoder, modifiers, Roundings::kNone);
  decoder.require(is_whole(type) && size_of(type) >= 4, "carry needs a 32-bit or 64-bit integer");
  decoder.expect_operands(3);
  Instruction instruction;
  instruction.a = decoder.use(decoder.operand(1), type);
  instruction.b = decoder.use(decoder.operand(2), type);
  instruction.dst = decoder.define(decoder.operand(0), type);
  Extra* extra = decoder.new_extra();
  if (reads) extra->src.push_back(decoder.carry());
  if (modifiers.has(kFlagCc)) extra->dst.push_back(decoder.carry());
  instruction.extra = extra;
  decoder.emit(instruction, {op, size_of(type) == 8 ? Type::kU64 : Type::kU32});
}

void saturated_rule(FunctionDecoder& decoder, const Modifiers& modifiers, Op op) {
  decoder.only_flags(modifiers, kFlagSat);
  check_rounding(decoder, modifiers, Roundings::kNone);
  decoder.require(main_type(decoder, modifiers) == Type::kS32, ".sat needs .s32");
  decoder.expect_operands(3);
  Instruction instruction;
  instruction.a = decoder.use(decoder.operand(1), Type::kS32);
  instruction.b = decoder.use(decoder.operand(2), Type::kS32);
  instruction.dst = decoder.define(decoder.operand(0), Type::kS32);
  decoder.emit(instruction, {op, Type::kS32, Type::kNone, kSat});
}

void add_or_sub(FunctionDecoder& decoder, const Modifiers& modifiers, Op plain, Op with_carry) {
  if (modifiers.has(kFlagCc)) return carry_rule(decoder, modifiers, with_carry, false);
  if (modifiers.has(kFlagSat) && !modifiers.types.empty() && is_integer(modifiers.types[0])) {
    return saturated_rule(decoder, modifiers, plain);
  }
  table_rule(decoder, modifiers);
}

void add_rule(FunctionDecoder& d, const Modifiers& m) { add_or_sub(d, m, Op::kAdd, Op::kAddCarry); }
void sub_rule(FunctionDecoder& d, const Modifiers& m) { add_or_sub(d, m, Op::kSub, Op::kSubCarry); }
void addc_rule(FunctionDecoder& d, const Modifiers& m) { carry_rule(d, m, Op::kAddCarry, true); }
void subc_rule(FunctionDecoder& d, const Modifiers& m) { carry_rule(d, m, Op::kSubCarry, true); }

void mul_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  const Type type = main_type(decoder, modifiers);
  if (!is_integer(type)) return table_rule(decoder, modifiers);
  decoder.require(is_whole(type), "8-bit integers have no arithmetic");
  decoder.only_flags(modifiers, kFlagLo | kFlagHi | kFlagWide);
  check_rounding(decoder, modifiers, Roundings::kNone);
  if (modifiers.has(kFlagWide)) {
    decoder.require(size_of(type) < 8, ".wide needs a 16-bit or 32-bit type");
    return emit_form(decoder, {"mul", Op::kMulWide, "Wtt", 0, 0}, type, modifiers);
  }
  decoder.require(modifiers.has(kFlagLo) != modifiers.has(kFlagHi), "expected .lo, .hi or .wide");
  emit_form(decoder, {"mul", modifiers.has(kFlagLo) ? Op::kMulLo : Op::kMulHi, "dtt", 0, 0}, type, modifiers);
}

void madc_common(FunctionDecoder& decoder, const Modifiers& modifiers, bool reads) {
  const Type type = main_type(decoder, modifiers);
  decoder.only_flags(modifiers, kFlagLo | kFlagHi | kFlagCc);
  check_rounding(decoder, modifiers, Roundings::kNone);
  decoder.require(is_whole(type) && size_of(type) >= 4, "carry needs a 32-bit or 64-bit integer");
  decoder.require(modifiers.has(kFlagLo) != modifiers.has(kFlagHi), "expected .lo or .hi");
  decoder.expect_operands(4);
  Instruction instruction;
  instruction.a = decoder.use(decoder.operand(1), type);
  instruction.b = decoder.use(decoder.operand(2), type);
  instruction.c = decoder.use(decoder.operand(3), type);
  instruction.dst = decoder.define(decoder.operand(0), type);
  Extra* extra = decoder.new_extra();
  if (reads) extra->src.push_back(decoder.carry());
  if (modifiers.has(kFlagCc)) extra->dst.push_back(decoder.carry());
  instruction.extra = extra;
  decoder.emit(instruction, {modifiers.has(kFlagLo) ? Op::kMadLoCarry : Op::kMadHiCarry, type});
}

void madc_rule(FunctionDecoder& d, const Modifiers& m) { madc_common(d, m, true); }

void mad_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  const Type type = main_type(decoder, modifiers);
  if (!is_integer(type)) return table_rule(decoder, modifiers);
  if (modifiers.has(kFlagCc)) return madc_common(decoder, modifiers, false);
  decoder.require(is_whole(type), "8-bit integers have no arithmetic");
  decoder.only_flags(modifiers, kFlagLo | kFlagHi | kFlagWide | kFlagSat);
  check_rounding(decoder, modifiers, Roundings::kNone);
  decoder.require(!modifiers.has(kFlagSat) || (modifiers.has(kFlagHi) && type == Type::kS32),
                  ".sat needs .hi and .s32");
  if (modifiers.has(kFlagWide)) {
    decoder.require(size_of(type) < 8, ".wide needs a 16-bit or 32-bit type");
    return emit_form(decoder, {"mad", Op::kMadWide, "Wttw", 0, 0}, type, modifiers);
  }
  decoder.require(modifiers.has(kFlagLo) != modifiers.has(kFlagHi), "expected .lo, .hi or .wide");
  emit_form(decoder, {"mad", modifiers.has(kFlagLo) ? Op::kMadLo : Op::kMadHi, "dttt", 0, 0}, type, modifiers);
}

// Logic between predicates is one operation on masks. u[0]: 0 and, 1 or, 2 xor; negations in u[1], u[2].
void logic_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  if (modifiers.types.size() != 1 || modifiers.types[0] != Type::kPred) return table_rule(decoder, modifiers);
  decoder.only_flags(modifiers, 0);
  const std::string_view opcode = decoder.source().opcode;
  const bool unary = opcode == "not";
  decoder.require(opcode != "cnot", "this instruction does not take predicates");
  decoder.expect_operands(unary ? 2 : 3);
  Instruction instruction;
  bool negated_a = false, negated_b = false;
  instruction.a = decoder.use_predicate(decoder.operand(1), negated_a);
  if (!unary) instruction.b = decoder.use_predicate(decoder.operand(2), negated_b);
  instruction.dst = decoder.define_predicate(decoder.operand(0));
  instruction.u[0] = opcode == "and" ? 0 : opcode == "or" ? 1 : 2;
  instruction.u[1] = negated_a;
  instruction.u[2] = negated_b;
  decoder.emit(instruction, {unary ? Op::kNotPred : Op::kLogicPred});
}

constexpr uint8_t kRounded = kSuffixType | kSuffixRounding;

constexpr NamedRule kRules[] = {
    {"add", add_rule, kRounded},        {"sub", sub_rule, kRounded},        {"addc", addc_rule, kSuffixType},
    {"subc", subc_rule, kSuffixType},   {"mul", mul_rule, kRounded},        {"mad", mad_rule, kRounded},
    {"madc", madc_rule, kSuffixType},   {"fma", table_rule, kRounded},      {"div", table_rule, kRounded},
    {"rem", table_rule, kSuffixType},   {"rcp", table_rule, kRounded},      {"sqrt", table_rule, kRounded},
    {"rsqrt", table_rule, kSuffixType}, {"sin", table_rule, kSuffixType},   {"cos", table_rule, kSuffixType},
    {"lg2", table_rule, kSuffixType},   {"ex2", table_rule, kSuffixType},   {"tanh", table_rule, kSuffixType},
    {"abs", table_rule, kSuffixType},   {"neg", table_rule, kSuffixType},   {"min", table_rule, kSuffixType},
    {"max", table_rule, kSuffixType},   {"mul24", table_rule, kSuffixType}, {"mad24", table_rule, kSuffixType},
    {"sad", table_rule, kSuffixType},   {"popc", table_rule, kSuffixType},  {"clz", table_rule, kSuffixType},
    {"bfind", table_rule, kSuffixType}, {"fns", table_rule, kSuffixType},   {"brev", table_rule, kSuffixType},
    {"bfe", table_rule, kSuffixType},   {"bfi", table_rule, kSuffixType},   {"szext", table_rule, kSuffixType},
    {"bmsk", table_rule, kSuffixType},  {"and", logic_rule, kSuffixType},   {"or", logic_rule, kSuffixType},
    {"xor", logic_rule, kSuffixType},   {"not", logic_rule, kSuffixType},   {"cnot", logic_rule, kSuffixType},
    {"shl", table_rule, kSuffixType},   {"shr", table_rule, kSuffixType},   {"copysign", table_rule, kSuffixType},

};

}  // namespace

RuleTable arithmetic_rules() { return {std::begin(kRules), std::end(kRules)}; }

}  // namespace flopcuda::ptxvm
