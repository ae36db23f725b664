// All rules by opcode.
#include "decode/rules.h"

#include <map>

namespace flopcuda::ptxvm {
namespace {

std::map<std::string_view, const NamedRule*> collect() {
  std::map<std::string_view, const NamedRule*> all;
  for (const RuleTable& table : {arithmetic_rules(), bits_rules(), comparison_rules(), data_rules(), memory_rules(),
                                 matrix_rules(), control_rules()}) {
    for (const NamedRule* entry = table.begin; entry != table.end; ++entry) all.emplace(entry->opcode, entry);
  }
  return all;
}

const std::map<std::string_view, const NamedRule*>& all_rules() {
  static const std::map<std::string_view, const NamedRule*> all = collect();
  return all;
}

}  // namespace

Type main_type(const FunctionDecoder& decoder, const Modifiers& modifiers, size_t count) {
  constexpr const char* kExpected[] = {"one type", "two types", "three types"};
  if (modifiers.types.size() != count) decoder.fail(std::string("expected ") + kExpected[count - 1]);
  return modifiers.types[0];
}

const NamedRule* rule_named(std::string_view opcode) {
  const auto found = all_rules().find(opcode);
  return found == all_rules().end() ? nullptr : found->second;
}

std::vector<std::string_view> opcode_names() {
  std::vector<std::string_view> names;
  for (const auto& [name, rule] : all_rules()) names.push_back(name);
  return names;
}

}  // namespace flopcuda::ptxvm
