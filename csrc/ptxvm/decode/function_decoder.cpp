// Decodes the body of one function.
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

int64_t align_up(int64_t value, int64_t align) { return (value + align - 1) / align * align; }

struct NamedSpecial {
  std::string_view name;
  Special which;
};

constexpr NamedSpecial kSpecials[] = {
    {"%tid.x", Special::kTidX},
    {"%tid.y", Special::kTidY},
    {"%tid.z", Special::kTidZ},
    {"%ntid.x", Special::kNtidX},
    {"%ntid.y", Special::kNtidY},
    {"%ntid.z", Special::kNtidZ},
    {"%ctaid.x", Special::kCtaidX},
    {"%ctaid.y", Special::kCtaidY},
    {"%ctaid.z", Special::kCtaidZ},
    {"%nctaid.x", Special::kNctaidX},
    {"%nctaid.y", Special::kNctaidY},
    {"%nctaid.z", Special::kNctaidZ},
    {"%laneid", Special::kLaneid},
    {"%warpid", Special::kWarpid},
    {"%nwarpid", Special::kNwarpid},
    {"%smid", Special::kSmid},
    {"%nsmid", Special::kNsmid},
    {"%gridid", Special::kGridid},
    {"%lanemask_eq", Special::kLanemaskEq},
    {"%lanemask_le", Special::kLanemaskLe},
    {"%lanemask_lt", Special::kLanemaskLt},
    {"%lanemask_ge", Special::kLanemaskGe},
    {"%lanemask_gt", Special::kLanemaskGt},
    {"%dynamic_smem_size", Special::kDynamicSharedBytes},
    {"%total_smem_size", Special::kTotalSharedBytes},
    {"%reserved_smem_offset_begin", Special::kReservedSharedBegin},
    {"%reserved_smem_offset_end", Special::kReservedSharedEnd},
    {"%reserved_smem_offset_0", Special::kReservedSharedBegin},
    {"%reserved_smem_offset_1", Special::kReservedSharedSecond},
    {"%reserved_smem_offset_cap", Special::kReservedSharedBytes},
    // CUDA's convention: the halves of the address of what a cooperative grid synchronises over.
    {"%envreg1", Special::kGridWorkspaceHigh},
    {"%envreg2", Special::kGridWorkspaceLow},
    {"%clusterid.x", Special::kCtaidX},
    {"%clusterid.y", Special::kCtaidY},
    {"%clusterid.z", Special::kCtaidZ},
    {"%nclusterid.x", Special::kNctaidX},
    {"%nclusterid.y", Special::kNctaidY},
    {"%nclusterid.z", Special::kNctaidZ},
    {"%cluster_ctaid.x", Special::kZero},
    {"%cluster_ctaid.y", Special::kZero},
    {"%cluster_ctaid.z", Special::kZero},
    {"%cluster_nctaid.x", Special::kOne},
    {"%cluster_nctaid.y", Special::kOne},
    {"%cluster_nctaid.z", Special::kOne},
    {"%cluster_ctarank", Special::kZero},
    {"%cluster_nctarank", Special::kOne},
};

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

constexpr std::string_view kWarpSizeName = "WARP_SZ";

// IEEE bits of a literal in the other width.
uint64_t widened(uint64_t bits) {
  const uint32_t low = static_cast<uint32_t>(bits);
  float single;
  std::memcpy(&single, &low, sizeof single);
  const double value = single;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

uint64_t narrowed(uint64_t bits) {
  double value;
  std::memcpy(&value, &bits, sizeof value);
  const float single = static_cast<float>(value);
  uint32_t low;
  std::memcpy(&low, &single, sizeof low);
  return low;
}

uint64_t low_bits(uint64_t bits, int size) { return size >= 8 ? bits : bits & ((uint64_t{1} << (8 * size)) - 1); }

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

// ---- operands ----

const Operand& FunctionDecoder::operand(size_t index) const {
  if (index >= instruction_->operands.size()) fail("too few operands");
  return instruction_->operands[index];
}

void FunctionDecoder::expect_operands(size_t low, size_t high) const {
  if (operand_count() < low) fail("too few operands");
  if (operand_count() > high) fail("too many operands");
}

void FunctionDecoder::only_flags(const Modifiers& modifiers, uint64_t allowed) const {
  if (!modifiers.others.empty()) fail("unknown modifier '." + std::string(modifiers.others[0]) + "'");
  if (!(modifiers.flags & ~allowed)) return;
  for (std::string_view suffix : instruction_->modifiers) {
    if (kind_of(suffix) == kSuffixFlag && !(flag_named(suffix) & allowed)) fail_modifier(suffix);
  }
}

void FunctionDecoder::expect_modifiers(const Modifiers& modifiers, size_t types, uint64_t flags, size_t spaces) const {
  only_flags(modifiers, flags);
  if (modifiers.types.size() != types) fail("expected " + std::to_string(types) + " types");
  if (modifiers.spaces.size() > spaces) fail("a state space does not apply to this instruction");
  if (modifiers.rounding || modifiers.compare) fail("a modifier does not apply to this instruction");
}

Ref FunctionDecoder::constant(int size, uint64_t bits) {
  bits = low_bits(bits, size == 0 ? 4 : size);
  const auto key = std::make_pair(size, bits);
  const auto found = environment_.constants->find(key);
  if (found != environment_.constants->end()) return found->second;
  auto& rows = environment_.program->constants;
  const Ref ref = static_cast<Ref>(rows.size()) | kConstantBase;
  const int copies = size == 0 ? 1 : kLanes;
  const int bytes = size == 0 ? 4 : size;
  rows.resize(rows.size() + align_up(copies * bytes, 64));
  for (int lane = 0; lane < copies; ++lane) std::memcpy(&rows[(ref & ~3) + lane * bytes], &bits, bytes);
  environment_.constants->emplace(key, ref);
  return ref;
}

Ref FunctionDecoder::special(Special which) const { return (static_cast<int>(which) * kLanes * 4) | kSpecialBase; }

// An inner name hides a special register.
std::optional<Special> FunctionDecoder::find_special(const Operand& operand) const {
  if (operand.kind != Operand::Kind::kName || operand.negated || operand.offset != 0) return std::nullopt;
  for (const NamedSpecial& entry : kSpecials) {
    if (entry.name == operand.name && !find(operand.name)) return entry.which;
  }
  return std::nullopt;
}

Ref FunctionDecoder::use_or_special(const Operand& operand, Type type) {
  int size = 0;
  const Ref ref = use_or_special_at_least(operand, type, size);
  check_register_size(operand, size, type);
  return ref;
}

Ref FunctionDecoder::use_or_special_at_least(const Operand& operand, Type type, int& size) {
  const std::optional<Special> which = find_special(operand);
  if (!which) return use_at_least(operand, type, size);
  size = size_of(type);
  if (*which == Special::kGridid && size == 8) return constant(8, kGridId);
  if (size != 4 || is_float(type)) fail("special register " + std::string(operand.name) + " is .u32");
  environment_.program->uses_reserved_shared |=
      *which >= Special::kReservedSharedBegin && *which <= Special::kReservedSharedBytes;
  return special(*which);
}

int64_t FunctionDecoder::immediate(const Operand& operand) const {
  if (operand.kind == Operand::Kind::kName && operand.name == kWarpSizeName && operand.offset == 0) return kLanes;
  if (operand.kind != Operand::Kind::kInteger || operand.negated) fail("expected an integer constant");
  return static_cast<int64_t>(operand.bits);
}

// A literal as the bits of a value of this type.
Ref FunctionDecoder::immediate_bits(const Operand& operand, Type type) {
  if (operand.negated) fail("'!' before a constant");
  const bool is_integer_literal = operand.kind == Operand::Kind::kInteger;
  const bool is_single = operand.kind == Operand::Kind::kFloat32;
  const bool fits = is_integer_literal   ? is_integer(type) || is_untyped(type)
                    : type == Type::kB32 ? is_single
                    : type == Type::kB64 ? !is_single
                                         : type == Type::kF32 || type == Type::kF64;
  if (!fits) {
    fail(std::string(is_integer_literal ? "an integer" : "a floating-point") + " constant where a ." +
         std::string(name_of(type)) + " is expected");
  }
  if (is_integer_literal || is_single == (size_of(type) == 4)) return constant(size_of(type), operand.bits);
  return constant(size_of(type), is_single ? widened(operand.bits) : narrowed(operand.bits));
}

// Untyped bits go with everything, the integers with each other, any other type only with itself.
void FunctionDecoder::check_register_type(const Operand& operand, Type held, Type wanted) const {
  const bool fits =
      is_untyped(held) || is_untyped(wanted) || (is_integer(held) && is_integer(wanted)) || held == wanted;
  if (fits) return;
  fail("register '" + std::string(operand.name) + "' is ." + std::string(name_of(held)) + ", not ." +
       std::string(name_of(wanted)));
}

void FunctionDecoder::check_register_size(const Operand& operand, int size, Type wanted) const {
  if (size == size_of(wanted)) return;
  fail("register '" + std::string(operand.name) + "' has " + std::to_string(8 * size) + " bits, ." +
       std::string(name_of(wanted)) + " needs " + std::to_string(8 * size_of(wanted)));
}

Ref FunctionDecoder::use(const Operand& operand, Type type) {
  int size = 0;
  const Ref ref = use_at_least(operand, type, size);
  check_register_size(operand, size, type);
  return ref;
}

Ref FunctionDecoder::use_at_least(const Operand& operand, Type type, int& size) {
  size = size_of(type);
  if (operand.kind == Operand::Kind::kInteger || operand.kind == Operand::Kind::kFloat32 ||
      operand.kind == Operand::Kind::kFloat64) {
    return immediate_bits(operand, type);
  }
  if (operand.kind != Operand::Kind::kName || operand.negated || operand.offset != 0) {
    fail("expected a register or a constant");
  }
  if (operand.name == kWarpSizeName) return constant(size, kLanes);
  if (find_special(operand)) fail("special register " + std::string(operand.name) + " is read by mov and cvt only");
  const int32_t id = virtual_register(operand.name);
  if (registers_[id].size == 0) fail("predicate '" + std::string(operand.name) + "' where a value is expected");
  if (registers_[id].size < size) check_register_size(operand, registers_[id].size, type);
  check_register_type(operand, registers_[id].type, type);
  size = registers_[id].size;
  return id << 2;
}

Ref FunctionDecoder::use_predicate(const Operand& operand, bool& negated) {
  negated = operand.negated;
  if (operand.kind == Operand::Kind::kInteger) return constant(0, operand.bits ? kAllLanes : 0);
  if (operand.kind != Operand::Kind::kName || operand.offset != 0) fail("expected a predicate");
  const int32_t id = virtual_register(operand.name);
  if (registers_[id].size != 0) fail("register '" + std::string(operand.name) + "' is not a predicate");
  return id << 2;
}

Ref FunctionDecoder::define(const Operand& operand, Type type) {
  int size = 0;
  const Ref ref = define_at_least(operand, type, size);
  check_register_size(operand, size, type);
  return ref;
}

Ref FunctionDecoder::define_at_least(const Operand& operand, Type type, int& size) {
  if (operand.kind != Operand::Kind::kName || operand.negated || operand.offset != 0) fail("expected a register");
  if (is_sink(operand)) fail("the result cannot be discarded here");
  const int32_t id = virtual_register(operand.name);
  if (registers_[id].size < size_of(type) || registers_[id].size == 0) {
    fail("register '" + std::string(operand.name) + "' cannot hold a ." + std::string(name_of(type)));
  }
  check_register_type(operand, registers_[id].type, type);
  size = registers_[id].size;
  return id << 2;
}

Ref FunctionDecoder::define_predicate(const Operand& operand) {
  if (operand.kind != Operand::Kind::kName || operand.negated || operand.offset != 0) fail("expected a predicate");
  if (is_sink(operand)) fail("the result cannot be discarded here");
  const int32_t id = virtual_register(operand.name);
  if (registers_[id].size != 0) fail("register '" + std::string(operand.name) + "' is not a predicate");
  return id << 2;
}

Ref FunctionDecoder::carry() {
  if (carry_ == kNoRef) {
    carry_ = static_cast<Ref>(registers_.size()) << 2;
    registers_.push_back({Type::kPred, 0});
  }
  return carry_;
}

bool FunctionDecoder::symbol_value(const Operand& operand, SymbolValue& out) const {
  if (operand.kind != Operand::Kind::kName || operand.negated) return false;
  const Symbol* symbol = find(operand.name);
  out = {};
  if (symbol) {
    if (symbol->kind == Symbol::Kind::kRegister) return false;
    out.value = static_cast<uint64_t>(symbol->value) + static_cast<uint64_t>(operand.offset);
    out.frame_relative = symbol->kind == Symbol::Kind::kFrame;
    out.has_address = symbol->has_address;
    out.space = symbol->space;
    return true;
  }
  if (const auto variable = environment_.variables.find(operand.name); variable != environment_.variables.end()) {
    out.value = place_of(*variable->second) + static_cast<uint64_t>(operand.offset);
    out.space = variable->second->space;
    return true;
  }
  if (const auto code = environment_.module_function.find(operand.name); code != environment_.module_function.end()) {
    if (operand.offset != 0) return false;
    out.value = kFunctionWindow + 16 * uint64_t{code->second};
    out.is_function = true;
    return true;
  }
  return false;
}

FunctionDecoder::Address FunctionDecoder::address(const Operand& operand) {
  if (operand.kind != Operand::Kind::kAddress) fail("expected an address in brackets");
  const Operand& base = operand.items[0];
  Address result;
  if (base.kind == Operand::Kind::kInteger && !base.negated) {
    result.base = constant(8, base.bits);
    result.absolute = true;
    return result;
  }
  if (base.kind != Operand::Kind::kName || base.negated) fail("expected a register or a variable in brackets");
  SymbolValue symbol;
  if (symbol_value(base, symbol)) {
    if (symbol.is_function) fail("'" + std::string(base.name) + "' is a function, not a variable");
    result.space = symbol.space;
    if (symbol.space == Space::kParam && !symbol.frame_relative) {
      result.entry_parameter = true;
      result.offset = static_cast<int64_t>(symbol.value);
    } else if (symbol.frame_relative) {
      result.frame_relative = true;
      result.base = constant(8, 0);
      result.offset = static_cast<int64_t>(symbol.value);
    } else {
      result.base = constant(8, symbol.value);
    }
    return result;
  }
  const int32_t id = virtual_register(base.name);
  const bool integral = is_integer(registers_[id].type) || is_untyped(registers_[id].type);
  if (!integral || registers_[id].size < 4) fail("an address needs an integer register of 32 or 64 bits");
  result.base = id << 2;
  result.wide = registers_[id].size == 8;
  result.offset = base.offset;
  return result;
}

FunctionDecoder::Address FunctionDecoder::address_in(const Operand& operand, Space space) {
  const Address result = address(operand);
  const bool reached_generically = result.space != Space::kConst && result.space != Space::kParam;
  require(result.space == space || result.space == Space::kGeneric || (space == Space::kGeneric && reached_generically),
          "the variable is in another state space");
  require(!result.absolute || space == Space::kLocal, "only .local memory has constant addresses");
  return result;
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
