// Rules of the instructions that work on bits, bytes and other parts of 32-bit registers, each in its own way.
#include <array>

#include "decode/rules.h"
#include "decode/type_sets.h"

namespace flopcuda::ptxvm {
namespace {

// lop3.b32 with its table in u[0]; lop3.and.b32 d|p adds a predicate: u[1] 1 or, 2 and; c's negation in u[2].
void lop3_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  decoder.require(main_type(decoder, modifiers) == Type::kB32, "lop3 needs .b32");
  decoder.only_flags(modifiers, kFlagAnd | kFlagOr);
  const bool to_predicate = modifiers.has(kFlagAnd | kFlagOr);
  decoder.expect_operands(to_predicate ? 6 : 5);
  Instruction instruction;
  instruction.a = decoder.use(decoder.operand(1), Type::kB32);
  instruction.b = decoder.use(decoder.operand(2), Type::kB32);
  instruction.c = decoder.use(decoder.operand(3), Type::kB32);
  const int64_t table = decoder.immediate(decoder.operand(4));
  decoder.require(table >= 0 && table <= 255, "the truth table has 8 bits");
  instruction.u[0] = static_cast<uint8_t>(table);
  if (!to_predicate) {
    instruction.dst = decoder.define(decoder.operand(0), Type::kB32);
    return decoder.emit(instruction, {Op::kLop3, Type::kU32});
  }
  const syntax::Operand& result = decoder.operand(0);
  decoder.require(result.kind == syntax::Operand::Kind::kPair, "expected d|p");
  Extra* extra = decoder.new_extra();
  bool negated = false;
  extra->src.push_back(decoder.use_predicate(decoder.operand(5), negated));
  extra->dst.push_back(decoder.define_predicate(result.items[1]));
  instruction.dst = decoder.define_or_discard(result.items[0], Type::kB32);
  instruction.u[1] = modifiers.has(kFlagOr) ? 1 : 2;
  instruction.u[2] = negated;
  instruction.extra = extra;
  decoder.emit(instruction, {Op::kLop3Pred, Type::kU32});
}

// shf.l/.r with .clamp or .wrap (u[0] = clamp).
void shf_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  decoder.require(main_type(decoder, modifiers) == Type::kB32, "shf needs .b32");
  decoder.only_flags(modifiers, kFlagL | kFlagR | kFlagClamp | kFlagWrap);
  decoder.require(modifiers.has(kFlagL) != modifiers.has(kFlagR), "expected .l or .r");
  decoder.require(modifiers.has(kFlagClamp) != modifiers.has(kFlagWrap), "expected .clamp or .wrap");
  decoder.expect_operands(4);
  Instruction instruction;
  instruction.a = decoder.use(decoder.operand(1), Type::kB32);
  instruction.b = decoder.use(decoder.operand(2), Type::kB32);
  instruction.c = decoder.use(decoder.operand(3), Type::kU32);
  instruction.dst = decoder.define(decoder.operand(0), Type::kB32);
  instruction.u[0] = modifiers.has(kFlagClamp);
  decoder.emit(instruction, {modifiers.has(kFlagL) ? Op::kFunnelLeft : Op::kFunnelRight, Type::kU32});
}

// Modes of prmt in u[0].
void prmt_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  constexpr std::string_view kModes[] = {"", "f4e", "b4e", "rc8", "ecl", "ecr", "rc16"};
  decoder.require(main_type(decoder, modifiers) == Type::kB32, "prmt needs .b32");
  decoder.require(modifiers.flags == 0 && modifiers.others.size() <= 1, "unexpected modifiers");
  decoder.expect_operands(4);
  Instruction instruction;
  for (size_t mode = 1; mode < std::size(kModes) && !modifiers.others.empty(); ++mode) {
    if (modifiers.others[0] == kModes[mode]) instruction.u[0] = static_cast<uint8_t>(mode);
  }
  decoder.require(modifiers.others.empty() || instruction.u[0] != 0, "unknown mode of prmt");
  instruction.a = decoder.use(decoder.operand(1), Type::kB32);
  instruction.b = decoder.use(decoder.operand(2), Type::kB32);
  instruction.c = decoder.use(decoder.operand(3), Type::kB32);
  instruction.dst = decoder.define(decoder.operand(0), Type::kB32);
  decoder.emit(instruction, {Op::kPrmt, Type::kU32});
}

// dp4a and dp2a: u[0], u[1] signedness of a and b; u[2] = .hi of dp2a.
void dot_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  const Type a = main_type(decoder, modifiers, 2);
  const Type b = modifiers.types[1];
  const bool four = decoder.source().opcode == "dp4a";
  decoder.only_flags(modifiers, four ? 0 : kFlagLo | kFlagHi);
  decoder.require((kInt32 & bit(a)) && (kInt32 & bit(b)), "the operands are .s32 or .u32");
  decoder.require(four || modifiers.has(kFlagLo) != modifiers.has(kFlagHi), "expected .lo or .hi");
  decoder.expect_operands(4);
  Instruction instruction;
  instruction.a = decoder.use(decoder.operand(1), a);
  instruction.b = decoder.use(decoder.operand(2), b);
  instruction.c = decoder.use(decoder.operand(3), Type::kU32);
  instruction.dst = decoder.define(decoder.operand(0), Type::kU32);
  instruction.u[0] = is_signed(a);
  instruction.u[1] = is_signed(b);
  instruction.u[2] = modifiers.has(kFlagHi);
  decoder.emit(instruction, {four ? Op::kDp4a : Op::kDp2a, Type::kU32}, Space::kGeneric, Type::kS8, four ? 4 : 2);
}

// vabsdiff2 and vabsdiff4 without selectors and masks: u[0], u[1] signedness of a and b; u[2] = .add; u[3] = .sat, 1
// unsigned, 2 signed.
void absolute_difference_rule(FunctionDecoder& decoder, const Modifiers& given) {
  Modifiers modifiers = given;
  const Type result = main_type(decoder, modifiers, 3);
  const Type a = modifiers.types[1], b = modifiers.types[2];
  const bool add = modifiers.take("add"), saturate = modifiers.has(kFlagSat);
  decoder.only_flags(modifiers, add ? 0 : kFlagSat);
  decoder.require((kInt32 & bit(result)) && (kInt32 & bit(a)) && (kInt32 & bit(b)), "the types are .s32 or .u32");
  decoder.expect_operands(4);
  Instruction instruction;
  instruction.a = decoder.use(decoder.operand(1), a);
  instruction.b = decoder.use(decoder.operand(2), b);
  instruction.c = decoder.use(decoder.operand(3), result);
  instruction.dst = decoder.define(decoder.operand(0), result);
  instruction.u[0] = is_signed(a);
  instruction.u[1] = is_signed(b);
  instruction.u[2] = add;
  instruction.u[3] = !saturate ? 0 : is_signed(result) ? 2 : 1;
  const bool of_bytes = decoder.source().opcode == "vabsdiff4";
  decoder.emit(instruction, {of_bytes ? Op::kAbsDiff4 : Op::kAbsDiff2, Type::kU32});
}

constexpr NamedRule kRules[] = {
    {"lop3", lop3_rule, kSuffixType},
    {"shf", shf_rule, kSuffixType},
    {"prmt", prmt_rule, kSuffixType},
    {"dp4a", dot_rule, kSuffixType},
    {"dp2a", dot_rule, kSuffixType},
    {"vabsdiff2", absolute_difference_rule, kSuffixType},
    {"vabsdiff4", absolute_difference_rule, kSuffixType},
};

}  // namespace

RuleTable bits_rules() { return {std::begin(kRules), std::end(kRules)}; }

}  // namespace flopcuda::ptxvm
