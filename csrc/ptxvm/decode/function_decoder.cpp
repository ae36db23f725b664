// The statements and names of a function; operands.cpp resolves what stands in its instructions.
#include "decode/function_decoder.h"

#include <algorithm>
#include <cstring>

#include "decode/address_flags.h"
#include "decode/rules.h"
#include "error.h"

namespace flopcuda::ptxvm {
namespace {

using syntax::Operand;

constexpr int64_t kMaxLocalBytes = int64_t{1} << 19;

// The number at the end of a name, written without leading zeros, and what stands before it; -1 without one.
int64_t split_number(std::string_view name, std::string_view& prefix) {
  size_t digits = name.size();
  while (digits > 0 && name[digits - 1] >= '0' && name[digits - 1] <= '9') --digits;
  const size_t length = name.size() - digits;
  if (length == 0 || length > 7 || digits == 0 || (name[digits] == '0' && length > 1)) return -1;
  prefix = name.substr(0, digits);
  int64_t number = 0;
  for (char c : name.substr(digits)) number = number * 10 + (c - '0');
  return number;
}

}  // namespace

int64_t lay_out_parameters(const std::vector<syntax::Variable>& variables, int64_t start,
                           std::vector<ParameterSlot>& slots) {
  int64_t offset = start;
  for (const syntax::Variable& variable : variables) {
    ParameterSlot slot;
    slot.align = std::max<int64_t>(variable.align, 1);
    slot.size = variable.size;
    slot.offset = align_up(offset, slot.align);
    slot.name = std::string(variable.name);
    slot.type = variable.type;
    slot.is_array = variable.size != size_of(variable.type);
    offset = slot.offset + slot.size;
    slots.push_back(std::move(slot));
  }
  return offset;
}

void set_address(Instruction& instruction, const FunctionDecoder::Address& address) {
  instruction.a = address.base;
  instruction.offset = address.offset;
  instruction.u[3] =
      static_cast<uint8_t>((address.wide ? kWideAddress : 0) | (address.frame_relative ? kFrameRelative : 0));
}

FunctionDecoder::FunctionDecoder(Environment& environment, const syntax::Function& source, Function& out)
    : environment_(environment), source_(source), out_(out), scopes_(1) {}

void FunctionDecoder::fail(const std::string& message) const {
  fail(message, instruction_ ? instruction_->line : source_.line);
}

void FunctionDecoder::fail(const std::string& message, int line) const {
  throw PtxError(message, std::string(source_.name), line, environment_.module->line_text(line));
}

void FunctionDecoder::run() {
  out_.name = std::string(source_.name);
  lay_out_parameters();
  collect_labels();
  position_of_statement_.resize(source_.body.size() + 1);
  for (size_t i = 0; i < source_.body.size(); ++i) {
    position_of_statement_[i] = pending_.size();
    statement(source_.body[i]);
  }
  instruction_ = nullptr;
  position_of_statement_[source_.body.size()] = pending_.size();
  resolve_targets();
  out_.registers = static_cast<int>(registers_.size());
}

void FunctionDecoder::lay_out_parameters() {
  for (const auto* list : {&source_.parameters, &source_.returns}) {
    for (const syntax::Variable& variable : *list) {
      if (variable.space == Space::kRegister) {
        fail("parameters in registers (.reg) are not supported", variable.line);
      }
      claim(variable.name, variable.line);
    }
  }
  out_.parameter_bytes = ptxvm::lay_out_parameters(source_.parameters, 0, out_.parameters);
  const int64_t end = ptxvm::lay_out_parameters(source_.returns, out_.parameter_bytes, out_.returns);
  if (end > 32764) fail("more than 32764 bytes of parameters");
  if (!source_.is_entry) out_.local_bytes = end;
  for (const auto* list : {&out_.parameters, &out_.returns}) {
    for (const ParameterSlot& slot : *list) {
      Symbol symbol;
      symbol.kind = source_.is_entry ? Symbol::Kind::kEntryParameter : Symbol::Kind::kFrame;
      symbol.space = Space::kParam;
      symbol.value = slot.offset;
      symbol.slot = slot;
      scopes_[0].symbols.emplace(std::string_view(slot.name), std::move(symbol));
    }
  }
}

// A name stands for one thing in its scope.
void FunctionDecoder::claim(std::string_view name, int line) {
  if (scopes_[scope_].defined_at.emplace(name, line).second) return;
  fail("'" + std::string(name) + "' is defined twice", line);
}

// Labels, branch targets and call prototypes may be named before they stand in the text.
void FunctionDecoder::collect_labels() {
  for (size_t i = 0; i < source_.body.size(); ++i) {
    const syntax::Statement& statement = source_.body[i];
    if (std::holds_alternative<syntax::ScopeBegin>(statement)) {
      scopes_.push_back({});
      scopes_.back().parent = scope_;
      scope_ = scopes_.size() - 1;
    } else if (std::holds_alternative<syntax::ScopeEnd>(statement)) {
      scope_ = scopes_[scope_].parent;
    } else if (const auto* label = std::get_if<syntax::Label>(&statement)) {
      claim(label->name, label->line);
      scopes_[scope_].labels.emplace(label->name, i);
    } else if (const auto* targets = std::get_if<syntax::Targets>(&statement)) {
      claim(targets->name, targets->line);
      scopes_[scope_].targets.emplace(targets->name, targets);
    } else if (const auto* prototype = std::get_if<syntax::Prototype>(&statement)) {
      claim(prototype->name, prototype->line);
      scopes_[scope_].prototypes.emplace(prototype->name, prototype);
    }
  }
}

void FunctionDecoder::statement(const syntax::Statement& statement) {
  if (std::holds_alternative<syntax::ScopeBegin>(statement)) {
    scope_ = next_scope_++;
  } else if (std::holds_alternative<syntax::ScopeEnd>(statement)) {
    scope_ = scopes_[scope_].parent;
  } else if (const auto* location = std::get_if<syntax::Location>(&statement)) {
    location_ = *location;
  } else if (const auto* variable = std::get_if<syntax::Variable>(&statement)) {
    declare(*variable);
  } else if (const auto* registers = std::get_if<syntax::Registers>(&statement)) {
    declare(*registers);
  } else if (const auto* instruction = std::get_if<syntax::Instruction>(&statement)) {
    this->instruction(*instruction);
  }
}

int64_t FunctionDecoder::reserve_frame(const syntax::Variable& variable) {
  const int64_t offset = align_up(out_.local_bytes, std::max<int64_t>(variable.align, 1));
  if (variable.size > kMaxLocalBytes || offset + variable.size > kMaxLocalBytes) {
    fail("more than 512 KiB of local memory", variable.line);
  }
  out_.local_bytes = offset + variable.size;
  return offset;
}

void FunctionDecoder::declare(const syntax::Variable& variable) {
  claim(variable.name, variable.line);
  Symbol symbol;
  symbol.space = variable.space;
  symbol.type = variable.type;
  symbol.has_address = variable.space != Space::kParam;
  symbol.slot = {0,
                 variable.size,
                 variable.align,
                 std::string(variable.name),
                 variable.type,
                 variable.size != size_of(variable.type)};
  switch (variable.space) {
    case Space::kLocal:
    case Space::kParam:
      symbol.kind = Symbol::Kind::kFrame;
      symbol.value = symbol.slot.offset = reserve_frame(variable);
      break;
    case Space::kShared:
      symbol.kind = Symbol::Kind::kShared;
      symbol.value = static_cast<int64_t>(place_of(variable));
      break;
    default:
      symbol.kind = Symbol::Kind::kMemory;
      symbol.value = static_cast<int64_t>(place_of(variable));
  }
  scopes_[scope_].symbols.emplace(variable.name, std::move(symbol));
}

uint64_t FunctionDecoder::place_of(const syntax::Variable& variable) const {
  const auto found = environment_.places.find(&variable);
  if (found == environment_.places.end()) {
    fail("variable '" + std::string(variable.name) + "' has no place", variable.line);
  }
  return found->second;
}

void FunctionDecoder::declare(const syntax::Registers& registers) {
  Symbol symbol;
  symbol.kind = Symbol::Kind::kRegister;
  symbol.type = registers.type;
  symbol.count = registers.count;
  Scope& scope = scopes_[scope_];
  const bool is_family = registers.count >= 0;
  if (!is_family) claim(registers.name, registers.line);
  const bool added = (is_family ? scope.families : scope.symbols).emplace(registers.name, std::move(symbol)).second;
  if (!added) fail("'" + std::string(registers.name) + "' is defined twice", registers.line);
}

void FunctionDecoder::instruction(const syntax::Instruction& instruction) {
  instruction_ = &instruction;
  const NamedRule* rule = rule_named(instruction.opcode);
  if (!rule) fail("unknown instruction '" + std::string(instruction.opcode) + "'");
  only_suffixes(rule->suffixes);
  const Modifiers modifiers = read_modifiers(instruction.modifiers);
  if (!modifiers.conflict.empty()) {
    fail("modifier '." + std::string(modifiers.conflict) + "' repeats or contradicts another");
  }
  rule->rule(*this, modifiers);
}

void FunctionDecoder::only_suffixes(uint8_t kinds) const {
  for (std::string_view suffix : instruction_->modifiers) {
    if (!(kind_of(suffix) & (kinds | kSuffixFlag | kSuffixOther))) fail_modifier(suffix);
  }
}

void FunctionDecoder::fail_modifier(std::string_view suffix) const {
  fail("modifier '." + std::string(suffix) + "' does not apply to this instruction");
}

// Until here a target is the index of a statement; from here the position of an instruction.
void FunctionDecoder::resolve_targets() {
  for (Pending& entry : pending_) {
    for (size_t& target : entry.targets) target = position_of_statement_[target];
  }
}

// ---- names ----

template <class Map>
auto FunctionDecoder::lookup(const Map Scope::* map, std::string_view name) const {
  for (size_t scope = scope_;; scope = scopes_[scope].parent) {
    const auto found = (scopes_[scope].*map).find(name);
    if (found != (scopes_[scope].*map).end()) return &found->second;
    if (scope == 0) return static_cast<const typename Map::mapped_type*>(nullptr);
  }
}

const FunctionDecoder::Symbol* FunctionDecoder::find(std::string_view name) const {
  return lookup(&Scope::symbols, name);
}

size_t FunctionDecoder::label_position(std::string_view name) const {
  const size_t* found = lookup(&Scope::labels, name);
  if (!found) fail("label '" + std::string(name) + "' is not defined");
  return *found;
}

const syntax::Targets* FunctionDecoder::targets_named(std::string_view name) const {
  const auto* found = lookup(&Scope::targets, name);
  return found ? *found : nullptr;
}

const syntax::Prototype* FunctionDecoder::prototype_named(std::string_view name) const {
  const auto* found = lookup(&Scope::prototypes, name);
  return found ? *found : nullptr;
}

const ParameterSlot* FunctionDecoder::local_slot(std::string_view name) const {
  const Symbol* symbol = find(name);
  return symbol && symbol->kind == Symbol::Kind::kFrame ? &symbol->slot : nullptr;
}

// A register by its whole name or, for %r<10>, by prefix and number.
const FunctionDecoder::Symbol* FunctionDecoder::find_register(std::string_view name) const {
  std::string_view prefix;
  const int64_t number = split_number(name, prefix);
  for (size_t scope = scope_;; scope = scopes_[scope].parent) {
    const Scope& here = scopes_[scope];
    if (const auto whole = here.symbols.find(name); whole != here.symbols.end()) {
      return whole->second.kind == Symbol::Kind::kRegister ? &whole->second : nullptr;
    }
    const auto family = number < 0 ? here.families.end() : here.families.find(prefix);
    if (family != here.families.end() && number < family->second.count) return &family->second;
    if (scope == 0) return nullptr;
  }
}

int32_t FunctionDecoder::virtual_register(std::string_view name) {
  const Symbol* symbol = find_register(name);
  if (!symbol) fail("'" + std::string(name) + "' is not declared");
  const auto [entry, added] = register_ids_.emplace(std::make_pair(symbol, name), registers_.size());
  if (added) registers_.push_back({symbol->type, size_of(symbol->type)});
  return entry->second;
}

bool FunctionDecoder::is_sink(const Operand& operand) const {
  return operand.kind == Operand::Kind::kName && operand.name == "_";
}

bool FunctionDecoder::is_register(const Operand& operand) const {
  return operand.kind == Operand::Kind::kName && operand.offset == 0 && find_register(operand.name);
}

Type FunctionDecoder::register_type(const Operand& operand) {
  if (!is_register(operand)) fail("expected a register");
  return find_register(operand.name)->type;
}

// ---- results ----

Extra* FunctionDecoder::new_extra() {
  out_.extras.emplace_back();
  return &out_.extras.back();
}

void FunctionDecoder::emit(const Instruction& decoded, HandlerKey key, Space space, Type fma, int64_t macs) {
  Instruction instruction = decoded;
  if (!instruction_->guard.empty()) {
    Operand guard;
    guard.name = instruction_->guard;
    bool ignored;
    instruction.guard = use_predicate(guard, ignored);
    instruction.guard_negated = instruction_->guard_negated;
  }
  InstructionInfo info;
  info.key = key;
  info.line = instruction_->line;
  info.source_file = location_.file;
  info.source_line = location_.line;
  info.function = static_cast<uint32_t>(&out_ - environment_.program->functions.data());
  info.name = std::string(instruction_->opcode);
  for (std::string_view suffix : instruction_->modifiers) info.name += "." + std::string(suffix);
  info.space = space;
  info.fma_type = fma;
  info.macs_per_lane = macs;
  instruction.op = key.op;
  instruction.variant = key.variant;
  instruction.index = static_cast<uint32_t>(environment_.program->info.size());
  environment_.program->info.push_back(std::move(info));
  pending_.push_back({instruction, false, {}});
}

void FunctionDecoder::emit_control(const Instruction& instruction, Op op, std::vector<size_t> targets) {
  emit(instruction, {op, Type::kNone, Type::kNone, 0});
  pending_.back().is_control = true;
  pending_.back().targets = std::move(targets);
}

}  // namespace flopcuda::ptxvm
