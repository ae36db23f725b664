// What stands in an instruction: registers, predicates, constants and addresses.
#include <cstring>

#include "decode/function_decoder.h"
#include "decode/special_registers.h"

namespace flopcuda::ptxvm {
namespace {

using syntax::Operand;

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

// A name by itself, as a register's is.
bool names_register(const Operand& operand) {
  return operand.kind == Operand::Kind::kName && !operand.negated && operand.offset == 0;
}

}  // namespace

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
  if (modifiers.rounding) fail("this instruction does not round");
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
  if (!names_register(operand) || find(operand.name)) return std::nullopt;
  return special_named(operand.name);
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
  if (!names_register(operand)) fail("expected a register or a constant");
  if (operand.name == kWarpSizeName) return constant(size, kLanes);
  if (find_special(operand)) fail("special register " + std::string(operand.name) + " is read by mov and cvt only");
  const int32_t id = virtual_register(operand.name);
  if (registers_[id].size == 0) fail("predicate '" + std::string(operand.name) + "' where a value is expected");
  if (registers_[id].size < size) check_register_size(operand, registers_[id].size, type);
  check_register_type(operand, registers_[id].type, type);
  size = registers_[id].size;
  return id << 2;
}

Ref FunctionDecoder::predicate_register(const Operand& operand) {
  const int32_t id = virtual_register(operand.name);
  if (registers_[id].size != 0) fail("register '" + std::string(operand.name) + "' is not a predicate");
  return id << 2;
}

Ref FunctionDecoder::use_predicate(const Operand& operand, bool& negated) {
  negated = operand.negated;
  if (operand.kind == Operand::Kind::kInteger) return constant(0, operand.bits ? kAllLanes : 0);
  if (operand.kind != Operand::Kind::kName || operand.offset != 0) fail("expected a predicate");
  return predicate_register(operand);
}

Ref FunctionDecoder::define(const Operand& operand, Type type) {
  int size = 0;
  const Ref ref = define_at_least(operand, type, size);
  check_register_size(operand, size, type);
  return ref;
}

Ref FunctionDecoder::define_at_least(const Operand& operand, Type type, int& size) {
  if (!names_register(operand)) fail("expected a register");
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
  if (!names_register(operand)) fail("expected a predicate");
  if (is_sink(operand)) fail("the result cannot be discarded here");
  return predicate_register(operand);
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

}  // namespace flopcuda::ptxvm
