// Rules of the instructions that compare and select.
#include <array>

#include "decode/rules.h"
#include "decode/type_sets.h"

namespace flopcuda::ptxvm {
namespace {

Type handler_type(Type type) { return is_untyped(type) ? integer_of(size_of(type)) : type; }

Compare comparison(FunctionDecoder& decoder, const Modifiers& modifiers, Type type) {
  decoder.require(modifiers.has(kFlagLo | kFlagHi) != modifiers.compare.has_value(), "expected one comparison");
  for (std::string_view suffix : decoder.source().modifiers) {
    const bool unsigned_spelling = suffix == "lo" || suffix == "ls" || suffix == "hi" || suffix == "hs";
    decoder.require(!unsigned_spelling || is_unsigned(type), "this comparison needs unsigned operands");
  }
  const bool flushes = type == Type::kF32 || type == Type::kF16 || type == Type::kF16x2;
  decoder.require(flushes || !modifiers.has(kFlagFtz), ".ftz does not apply to this type");
  if (modifiers.has(kFlagLo)) return Compare::kLt;
  if (modifiers.has(kFlagHi)) return Compare::kGt;
  const Compare compare = *modifiers.compare;
  decoder.require(is_float(type) || type == Type::kF16x2 || type == Type::kBF16x2 || compare < Compare::kEqu,
                  "this comparison needs floating-point operands");
  decoder.require(!is_untyped(type) || compare == Compare::kEq || compare == Compare::kNe,
                  "untyped operands compare only .eq and .ne");
  return compare;
}

uint64_t comparable_types() {
  return kIntegers | kBits | kF32 | kF64 | bit(Type::kF16) | bit(Type::kBF16) | bit(Type::kF16x2) | bit(Type::kBF16x2);
}

// The optional .and, .or, .xor with a further predicate: u[1] 0 none, 1 and, 2 or, 3 xor; u[2] its negation.
void combine(FunctionDecoder& decoder, const Modifiers& modifiers, Instruction& instruction, size_t operand) {
  const uint64_t which = modifiers.flags & (kFlagAnd | kFlagOr | kFlagXor);
  if (!which) return decoder.expect_operands(operand);
  decoder.expect_operands(operand + 1);
  instruction.u[1] = which == kFlagAnd ? 1 : which == kFlagOr ? 2 : 3;
  bool negated = false;
  instruction.c = decoder.use_predicate(decoder.operand(operand), negated);
  instruction.u[2] = negated;
}

// What set and setp have in common: the comparison in u[0], and what it is combined with.
Instruction compared(FunctionDecoder& decoder, const Modifiers& modifiers, Type type) {
  decoder.require(comparable_types() & bit(type), "these operands cannot be compared");
  decoder.only_flags(modifiers, kFlagFtz | kFlagAnd | kFlagOr | kFlagXor | kFlagLo | kFlagHi);
  Instruction instruction;
  instruction.u[0] = static_cast<uint8_t>(comparison(decoder, modifiers, type));
  instruction.a = decoder.use(decoder.operand(1), type);
  instruction.b = decoder.use(decoder.operand(2), type);
  combine(decoder, modifiers, instruction, 3);
  return instruction;
}

void emit_comparison(FunctionDecoder& decoder, const Modifiers& modifiers, const Instruction& instruction, Op op,
                     Type type) {
  const int variant = instruction.u[0] | (modifiers.has(kFlagFtz) ? 32 : 0);
  decoder.emit(instruction, {op, handler_type(type), Type::kNone, static_cast<uint8_t>(variant)});
}

void setp_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  decoder.require(modifiers.types.size() == 1, "expected one type");
  const Type type = modifiers.types[0];
  Instruction instruction = compared(decoder, modifiers, type);
  const syntax::Operand& result = decoder.operand(0);
  Extra* extra = decoder.new_extra();
  instruction.extra = extra;
  if (result.kind == syntax::Operand::Kind::kPair) {
    instruction.dst = decoder.define_predicate_or_discard(result.items[0]);
    extra->dst.push_back(decoder.define_predicate_or_discard(result.items[1]));
  } else {
    instruction.dst = decoder.define_predicate_or_discard(result);
  }
  emit_comparison(decoder, modifiers, instruction, Op::kSetp, type);
}

void set_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  decoder.require(modifiers.types.size() == 2, "expected two types");
  const Type result = modifiers.types[0];
  const Type type = modifiers.types[1];
  const uint64_t results =
      kF32 | kInt32 | kInt16 | bit(Type::kF16) | bit(Type::kBF16) | bit(Type::kF16x2) | bit(Type::kBF16x2);
  decoder.require(results & bit(result), "set cannot give this type");
  const bool pair = type == Type::kF16x2 || type == Type::kBF16x2;
  const bool gives_pair = size_of(result) == 4 && (is_integer(result) || result == type);
  decoder.require(!pair || gives_pair, "set of a pair gives a pair or 32 bits");
  Instruction instruction = compared(decoder, modifiers, type);
  instruction.dst = decoder.define(decoder.operand(0), result);
  instruction.u[3] = static_cast<uint8_t>(result);
  emit_comparison(decoder, modifiers, instruction, Op::kSet, type);
}

void require_selectable(const FunctionDecoder& decoder, Type type) {
  const bool whole = (is_integer(type) || is_untyped(type)) && size_of(type) >= 2 && size_of(type) <= 8;
  decoder.require(whole || type == Type::kF32 || type == Type::kF64, "this instruction does not take this type");
}

void selp_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  const Type type = main_type(decoder, modifiers);
  decoder.only_flags(modifiers, 0);
  decoder.expect_operands(4);
  require_selectable(decoder, type);
  Instruction instruction;
  bool negated = false;
  instruction.a = decoder.use(decoder.operand(1), type);
  instruction.b = decoder.use(decoder.operand(2), type);
  instruction.c = decoder.use_predicate(decoder.operand(3), negated);
  instruction.u[0] = negated;
  instruction.dst = decoder.define(decoder.operand(0), type);
  decoder.emit(instruction, {Op::kSelp, integer_of(size_of(type))});
}

// slct.dtype.ctype, by the sign of the selector.
void slct_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  const Type type = main_type(decoder, modifiers, 2);
  const Type selector = modifiers.types[1];
  decoder.require(selector == Type::kS32 || selector == Type::kF32, "the selector is .s32 or .f32");
  decoder.only_flags(modifiers, selector == Type::kF32 ? kFlagFtz : 0);
  decoder.expect_operands(4);
  require_selectable(decoder, type);
  Instruction instruction;
  instruction.a = decoder.use(decoder.operand(1), type);
  instruction.b = decoder.use(decoder.operand(2), type);
  instruction.c = decoder.use(decoder.operand(3), selector);
  instruction.dst = decoder.define(decoder.operand(0), type);
  const uint8_t variant = modifiers.has(kFlagFtz) ? kFtz : 0;
  decoder.emit(instruction, {Op::kSlct, integer_of(size_of(type)), selector, variant});
}

// testp: u[0] is the property.
void testp_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  constexpr std::string_view kProperties[] = {"finite", "infinite", "number", "notanumber", "normal", "subnormal"};
  const Type type = main_type(decoder, modifiers);
  decoder.require(type == Type::kF32 || type == Type::kF64, "testp needs .f32 or .f64");
  decoder.require(modifiers.others.size() == 1 && modifiers.flags == 0, "expected one property");
  decoder.expect_operands(2);
  Instruction instruction;
  size_t property = 0;
  while (property < std::size(kProperties) && kProperties[property] != modifiers.others[0]) ++property;
  decoder.require(property < std::size(kProperties), "unknown property of testp");
  instruction.u[0] = static_cast<uint8_t>(property);
  instruction.a = decoder.use(decoder.operand(1), type);
  instruction.dst = decoder.define_predicate(decoder.operand(0));
  decoder.emit(instruction, {Op::kTestp, type});
}

constexpr uint8_t kCompared = kSuffixType | kSuffixCompare;

constexpr NamedRule kRules[] = {
    {"setp", setp_rule, kCompared},   {"set", set_rule, kCompared},       {"selp", selp_rule, kSuffixType},
    {"slct", slct_rule, kSuffixType}, {"testp", testp_rule, kSuffixType},
};

}  // namespace

RuleTable comparison_rules() { return {std::begin(kRules), std::end(kRules)}; }

}  // namespace flopcuda::ptxvm
