// One rule for each opcode: checks the modifiers and operands of an instruction and emits its decoded form.
#pragma once

#include <string_view>
#include <vector>

#include "decode/function_decoder.h"

namespace flopcuda::ptxvm {

using Rule = void (*)(FunctionDecoder& decoder, const Modifiers& modifiers);

struct NamedRule {
  std::string_view opcode;
  Rule rule;
  uint8_t suffixes;  // kinds that the instruction has, besides flags and words of its own, which the rule checks
};

// The tables of the families.
struct RuleTable {
  const NamedRule* begin;
  const NamedRule* end;
};
RuleTable arithmetic_rules();
RuleTable bits_rules();        // lop3, shf, prmt, and sums over parts of registers
RuleTable comparison_rules();  // setp, set, testp, and what selects by a condition
RuleTable data_rules();        // mov, cvt, cvta, shfl and other movement between registers
RuleTable memory_rules();      // ld, st, atom, red, cp.async, prefetch
RuleTable matrix_rules();      // ldmatrix, stmatrix, movmatrix, mma, wmma
RuleTable control_rules();     // bra, call, ret, exit, bar, vote, membar and so on

// The first of the types, of which there must be so many.
Type main_type(const FunctionDecoder& decoder, const Modifiers& modifiers, size_t count = 1);

// Null for an opcode that nobody knows.
const NamedRule* rule_named(std::string_view opcode);

// Of all rules, sorted.
std::vector<std::string_view> opcode_names();

}  // namespace flopcuda::ptxvm
