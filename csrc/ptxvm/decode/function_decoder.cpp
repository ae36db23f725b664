// Decodes the body of one function.
#include "decode/function_decoder.h"

#include <algorithm>
#include <cstring>

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
    {"WARP_SZ", Special::kWarpSize},
    {"%dynamic_smem_size", Special::kDynamicSharedBytes},
    {"%total_smem_size", Special::kTotalSharedBytes},
    {"%reserved_smem_offset_begin", Special::kReservedShared},
    {"%reserved_smem_offset_end", Special::kReservedShared},
    {"%reserved_smem_offset_0", Special::kReservedShared},
    {"%reserved_smem_offset_1", Special::kReservedShared},
    {"%reserved_smem_offset_cap", Special::kReservedShared},
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

FunctionDecoder::FunctionDecoder(Environment& environment, const syntax::Function& source, Function& out)
    : environment_(environment), source_(source), out_(out), scopes_(1) {}

void FunctionDecoder::fail(const std::string& message) const {
  const int line = instruction_ ? instruction_->line : source_.line;
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
      if (variable.space == Space::kRegister) fail("parameters in registers (.reg) are not supported");
      if (variable.unbounded) fail("parameter without a size");
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
      symbol.value = slot.offset;
      symbol.slot = slot;
      scopes_[0].symbols.emplace(std::string_view(slot.name), std::move(symbol));
    }
  }
}

// Labels, branch targets and call prototypes may be named before they stand in the text.
void FunctionDecoder::collect_labels() {
  size_t current = 0;
  for (size_t i = 0; i < source_.body.size(); ++i) {
    const syntax::Statement& statement = source_.body[i];
    if (std::holds_alternative<syntax::ScopeBegin>(statement)) {
      scopes_.push_back({});
      scopes_.back().parent = current;
      current = scopes_.size() - 1;
    } else if (std::holds_alternative<syntax::ScopeEnd>(statement)) {
      current = scopes_[current].parent;
    } else if (const auto* label = std::get_if<syntax::Label>(&statement)) {
      if (!scopes_[current].labels.emplace(label->name, i).second) {
        throw PtxError("label '" + std::string(label->name) + "' is defined twice", out_.name, label->line,
                       environment_.module->line_text(label->line));
      }
    } else if (const auto* targets = std::get_if<syntax::Targets>(&statement)) {
      scopes_[current].targets.emplace(targets->name, targets);
    } else if (const auto* prototype = std::get_if<syntax::Prototype>(&statement)) {
      scopes_[current].prototypes.emplace(prototype->name, prototype);
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

int64_t FunctionDecoder::reserve_frame(int64_t size, int64_t align) {
  const int64_t offset = align_up(out_.local_bytes, std::max<int64_t>(align, 1));
  if (size > kMaxLocalBytes || offset + size > kMaxLocalBytes) fail("more than 512 KiB of local memory");
  out_.local_bytes = offset + size;
  return offset;
}

void FunctionDecoder::declare(const syntax::Variable& variable) {
  Symbol symbol;
  symbol.type = variable.type;
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
      if (variable.unbounded) fail("local variable without a size");
      symbol.value = symbol.slot.offset = reserve_frame(variable.size, variable.align);
      break;
    default: {
      symbol.kind = variable.space == Space::kShared ? Symbol::Kind::kShared : Symbol::Kind::kMemory;
      const auto found = environment_.place_of.find(&variable);
      if (found == environment_.place_of.end()) fail("variable '" + std::string(variable.name) + "' has no place");
      symbol.value = static_cast<int64_t>(found->second);
    }
  }
  scopes_[scope_].symbols.insert_or_assign(variable.name, std::move(symbol));
}

void FunctionDecoder::declare(const syntax::Registers& registers) {
  Symbol symbol;
  symbol.kind = Symbol::Kind::kRegister;
  symbol.type = registers.type;
  symbol.count = registers.count;
  scopes_[scope_].symbols.insert_or_assign(registers.name, std::move(symbol));
}

void FunctionDecoder::instruction(const syntax::Instruction& instruction) {
  instruction_ = &instruction;
  const Rule rule = rule_named(instruction.opcode);
  if (!rule) fail("unknown instruction '" + std::string(instruction.opcode) + "'");
  const Modifiers modifiers = read_modifiers(instruction.modifiers);
  rule(*this, modifiers);
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

std::vector<std::string_view> FunctionDecoder::targets_named(std::string_view name) const {
  const auto* found = lookup(&Scope::targets, name);
  if (!found) fail("branch targets '" + std::string(name) + "' are not defined");
  return (*found)->labels;
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
  const Symbol* whole = find(name);
  if (whole) return whole->kind == Symbol::Kind::kRegister && whole->count < 0 ? whole : nullptr;
  size_t digits = name.size();
  while (digits > 0 && name[digits - 1] >= '0' && name[digits - 1] <= '9') --digits;
  if (digits == name.size() || digits == 0 || name.size() - digits > 7) return nullptr;
  if (name[digits] == '0' && name.size() - digits > 1) return nullptr;
  int64_t number = 0;
  for (char c : name.substr(digits)) number = number * 10 + (c - '0');
  const Symbol* family = find(name.substr(0, digits));
  return family && family->kind == Symbol::Kind::kRegister && number < family->count ? family : nullptr;
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
  if (modifiers.flags & ~allowed) fail("a modifier does not apply to this instruction");
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

Ref FunctionDecoder::special_named(std::string_view name, int size) const {
  for (const NamedSpecial& entry : kSpecials) {
    if (entry.name != name) continue;
    if (size != 4) fail("special register " + std::string(name) + " has 32 bits");
    return special(entry.which);
  }
  return kNoRef;
}

int64_t FunctionDecoder::immediate(const Operand& operand) const {
  if (operand.kind == Operand::Kind::kName && operand.name == "WARP_SZ" && operand.offset == 0) return kLanes;
  if (operand.kind != Operand::Kind::kInteger || operand.negated) fail("expected an integer constant");
  return static_cast<int64_t>(operand.bits);
}

// A literal as the bits of a value of this type; an integer literal in a float context is not PTX.
Ref FunctionDecoder::immediate_bits(const Operand& operand, Type type) {
  const int size = size_of(type);
  if (operand.negated) fail("'!' before a constant");
  if (operand.kind == Operand::Kind::kInteger) {
    if (is_float(type) && size > 2) fail("integer constant where a ." + std::string(name_of(type)) + " is expected");
    return constant(size, operand.bits);
  }
  if (size == 4) {
    if (operand.kind == Operand::Kind::kFloat32) return constant(4, operand.bits);
    double value;
    std::memcpy(&value, &operand.bits, 8);
    const float single = static_cast<float>(value);
    uint32_t bits;
    std::memcpy(&bits, &single, 4);
    return constant(4, bits);
  }
  if (size == 8) {
    if (operand.kind == Operand::Kind::kFloat64) return constant(8, operand.bits);
    const uint32_t low = static_cast<uint32_t>(operand.bits);
    float single;
    std::memcpy(&single, &low, 4);
    const double value = single;
    uint64_t bits;
    std::memcpy(&bits, &value, 8);
    return constant(8, bits);
  }
  fail("a floating-point constant needs 32 or 64 bits");
}

Ref FunctionDecoder::use(const Operand& operand, Type type) {
  int size = 0;
  const Ref ref = use_at_least(operand, type, size);
  if (size != size_of(type)) {
    fail("register '" + std::string(operand.name) + "' has " + std::to_string(8 * size) + " bits, ." +
         std::string(name_of(type)) + " needs " + std::to_string(8 * size_of(type)));
  }
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
  if (!find(operand.name)) {
    const Ref ref = special_named(operand.name, size);
    if (ref != kNoRef) return ref;
  }
  const int32_t id = virtual_register(operand.name);
  if (registers_[id].size == 0) fail("predicate '" + std::string(operand.name) + "' where a value is expected");
  if (registers_[id].size < size) {
    fail("register '" + std::string(operand.name) + "' has " + std::to_string(8 * registers_[id].size) + " bits, ." +
         std::string(name_of(type)) + " needs " + std::to_string(8 * size));
  }
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
  if (ref != kNoRef && size != size_of(type)) {
    fail("register '" + std::string(operand.name) + "' has " + std::to_string(8 * size) + " bits, ." +
         std::string(name_of(type)) + " needs " + std::to_string(8 * size_of(type)));
  }
  return ref;
}

Ref FunctionDecoder::define_at_least(const Operand& operand, Type type, int& size) {
  size = size_of(type);
  if (is_sink(operand)) return kNoRef;
  if (operand.kind != Operand::Kind::kName || operand.negated || operand.offset != 0) fail("expected a register");
  const int32_t id = virtual_register(operand.name);
  if (registers_[id].size < size || registers_[id].size == 0) {
    fail("register '" + std::string(operand.name) + "' cannot hold a ." + std::string(name_of(type)));
  }
  size = registers_[id].size;
  return id << 2;
}

Ref FunctionDecoder::define_predicate(const Operand& operand) {
  if (is_sink(operand)) return kNoRef;
  if (operand.kind != Operand::Kind::kName || operand.negated || operand.offset != 0) fail("expected a predicate");
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
    out.space = symbol->kind == Symbol::Kind::kFrame            ? Space::kLocal
                : symbol->kind == Symbol::Kind::kShared         ? Space::kShared
                : symbol->kind == Symbol::Kind::kEntryParameter ? Space::kParam
                                                                : Space::kGlobal;
    return true;
  }
  if (const auto memory = environment_.memory.find(operand.name); memory != environment_.memory.end()) {
    out.value = memory->second + static_cast<uint64_t>(operand.offset);
    out.space = Space::kGlobal;
    return true;
  }
  if (const auto shared = environment_.shared.find(operand.name); shared != environment_.shared.end()) {
    out.value = static_cast<uint64_t>(shared->second) + static_cast<uint64_t>(operand.offset);
    out.space = Space::kShared;
    return true;
  }
  if (const auto code = environment_.module_function.find(operand.name); code != environment_.module_function.end()) {
    if (operand.offset != 0) return false;
    out.value = kFunctionWindow + 16 * uint64_t{code->second};
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
    return result;
  }
  if (base.kind != Operand::Kind::kName || base.negated) fail("expected a register or a variable in brackets");
  SymbolValue symbol;
  if (symbol_value(base, symbol)) {
    result.space = symbol.space;
    if (symbol.space == Space::kParam) {
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
  if (registers_[id].size != 4 && registers_[id].size != 8) fail("an address needs a register of 32 or 64 bits");
  result.base = id << 2;
  result.wide = registers_[id].size == 8;
  result.offset = base.offset;
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
