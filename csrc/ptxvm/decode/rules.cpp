// All rules by opcode.
#include "decode/rules.h"

#include <unordered_map>

namespace flopcuda::ptxvm {
namespace {

std::unordered_map<std::string_view, Rule> collect() {
  std::unordered_map<std::string_view, Rule> all;
  for (const RuleTable& table : {arithmetic_rules(), data_rules(), memory_rules(), matrix_rules(), control_rules()}) {
    for (const NamedRule* entry = table.begin; entry != table.end; ++entry) all.emplace(entry->opcode, entry->rule);
  }
  return all;
}

}  // namespace

Rule rule_named(std::string_view opcode) {
  static const std::unordered_map<std::string_view, Rule> all = collect();
  const auto found = all.find(opcode);
  return found == all.end() ? nullptr : found->second;
}

}  // namespace flopcuda::ptxvm
