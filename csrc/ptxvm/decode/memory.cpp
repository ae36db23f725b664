// Rules of the memory instructions.
//
// Decoded form: a is the address register, offset is added to it. u[0] bytes of an element, u[1] elements of a vector,
// u[2] bytes of the register, u[3] the AddressFlags.
#include <algorithm>
#include <array>

#include "decode/address_flags.h"
#include "decode/rules.h"

namespace flopcuda::ptxvm {
namespace {

using syntax::Operand;

constexpr uint64_t kMemoryFlags = kFlagVolatile | kFlagRelaxed | kFlagAcquire | kFlagRelease | kFlagAcqRel | kFlagWeak |
                                  kFlagScope | kFlagNc | kFlagCacheHint | kFlagMmio;
constexpr uint64_t kVectorFlags = kFlagV2 | kFlagV4 | kFlagV8;

int vector_count(const Modifiers& modifiers) {
  return modifiers.has(kFlagV2) ? 2 : modifiers.has(kFlagV4) ? 4 : modifiers.has(kFlagV8) ? 8 : 1;
}

Space access_space(const FunctionDecoder& decoder, const Modifiers& modifiers,
                   const FunctionDecoder::Address& address) {
  decoder.require(modifiers.spaces.size() <= 1, "expected one state space");
  Space space = modifiers.spaces.empty() ? address.space : modifiers.spaces[0];
  // Constant memory and device-function parameters are ordinary memory here.
  if (space == Space::kConst) space = Space::kGlobal;
  if (space == Space::kParam && address.frame_relative) space = Space::kLocal;
  decoder.require(address.space == Space::kGeneric || space == Space::kGeneric || space == address.space,
                  "the variable is in another state space");
  return space;
}

// The integer type of an element in memory or of a register, which selects the handler.
Type integer_of(int size, bool with_sign) {
  switch (size) {
    case 1:
      return with_sign ? Type::kS8 : Type::kU8;
    case 2:
      return with_sign ? Type::kS16 : Type::kU16;
    case 4:
      return with_sign ? Type::kS32 : Type::kU32;
    default:
      return with_sign ? Type::kS64 : Type::kU64;
  }
}

void set_address(Instruction& instruction, const FunctionDecoder::Address& address) {
  instruction.a = address.base;
  instruction.offset = address.offset;
  instruction.u[3] =
      static_cast<uint8_t>((address.wide ? kWideAddress : 0) | (address.frame_relative ? kFrameRelative : 0));
}

void check_element(const FunctionDecoder& decoder, Type type, int count) {
  const bool plain = is_integer(type) || is_untyped(type) || type == Type::kF32 || type == Type::kF64;
  decoder.require(plain && type != Type::kB128, "this type cannot be loaded or stored");
  decoder.require(size_of(type) * count <= 32, "vector over 32 bytes");
}

void ld_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  decoder.only_flags(modifiers, kMemoryFlags | kVectorFlags);
  decoder.require(modifiers.types.size() == 1 && !modifiers.rounding && !modifiers.compare, "expected one type");
  decoder.expect_operands(2);
  const Type type = modifiers.types[0];
  const int count = vector_count(modifiers);
  check_element(decoder, type, count);
  const FunctionDecoder::Address address = decoder.address(decoder.operand(1));
  const Space space = access_space(decoder, modifiers, address);
  Instruction instruction;
  set_address(instruction, address);
  int size = size_of(type);
  const Operand& result = decoder.operand(0);
  Extra* extra = decoder.new_extra();
  if (count == 1) {
    instruction.dst = decoder.define_at_least(result, type, size);
    extra->dst.push_back(instruction.dst);
  } else {
    decoder.require(result.kind == Operand::Kind::kVector && static_cast<int>(result.items.size()) == count,
                    "expected a vector of registers");
    int widest = 0;
    for (const Operand& item : result.items) {
      extra->dst.push_back(decoder.define_at_least(item, type, size));
      if (extra->dst.back() == kNoRef) continue;
      decoder.require(widest == 0 || widest == size, "registers of different widths");
      widest = size;
    }
    if (widest != 0) size = widest;
  }
  if (size == 1) size = 4;  // a sink
  instruction.extra = extra;
  instruction.u[0] = static_cast<uint8_t>(size_of(type));
  instruction.u[1] = static_cast<uint8_t>(count);
  instruction.u[2] = static_cast<uint8_t>(size);
  const Type memory = integer_of(size_of(type), is_signed(type));
  const Type reg = integer_of(size, false);
  if (address.entry_parameter) return decoder.emit(instruction, {Op::kLoadParam, memory, reg}, space);
  decoder.emit(instruction, {Op::kLoad, memory, reg, static_cast<uint8_t>(space)}, space);
}

void st_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  decoder.only_flags(modifiers, kMemoryFlags | kVectorFlags);
  decoder.require(modifiers.types.size() == 1 && !modifiers.rounding && !modifiers.compare, "expected one type");
  decoder.expect_operands(2);
  const Type type = modifiers.types[0];
  const int count = vector_count(modifiers);
  check_element(decoder, type, count);
  const FunctionDecoder::Address address = decoder.address(decoder.operand(0));
  decoder.require(!address.entry_parameter, "kernel parameters cannot be stored to");
  const Space space = access_space(decoder, modifiers, address);
  Instruction instruction;
  set_address(instruction, address);
  Extra* extra = decoder.new_extra();
  const Operand& source = decoder.operand(1);
  int size = size_of(type);
  // An 8-bit constant still needs a row of its own width.
  const Type row = size == 1 ? Type::kB16 : type;
  const auto use_source = [&](const Operand& item) {
    const bool is_constant = item.kind == Operand::Kind::kInteger;
    return decoder.use_at_least(item, is_constant ? row : type, size);
  };
  if (count == 1) {
    extra->src.push_back(use_source(source));
    extra->values.push_back(size);
  } else {
    decoder.require(source.kind == Operand::Kind::kVector && static_cast<int>(source.items.size()) == count,
                    "expected a vector of registers");
    for (const Operand& item : source.items) {
      extra->src.push_back(use_source(item));
      extra->values.push_back(size);
    }
  }
  instruction.b = extra->src[0];
  instruction.extra = extra;
  instruction.u[0] = static_cast<uint8_t>(size_of(type));
  instruction.u[1] = static_cast<uint8_t>(count);
  instruction.u[2] = static_cast<uint8_t>(size);
  const Type memory = integer_of(size_of(type), false);
  decoder.emit(instruction, {Op::kStore, memory, Type::kNone, static_cast<uint8_t>(space)}, space);
}

// ---- atom, red: u[1] is the AtomicOp. ----

struct NamedAtomic {
  std::string_view name;
  AtomicOp op;
};

constexpr NamedAtomic kAtomics[] = {
    {"exch", AtomicOp::kExchange}, {"cas", AtomicOp::kCompareSwap}, {"add", AtomicOp::kAdd}, {"inc", AtomicOp::kInc},
    {"dec", AtomicOp::kDec},       {"min", AtomicOp::kMin},         {"max", AtomicOp::kMax},
};

AtomicOp atomic_op(FunctionDecoder& decoder, const Modifiers& modifiers) {
  if (modifiers.has(kFlagAnd)) return AtomicOp::kAnd;
  if (modifiers.has(kFlagOr)) return AtomicOp::kOr;
  if (modifiers.has(kFlagXor)) return AtomicOp::kXor;
  for (const NamedAtomic& entry : kAtomics) {
    if (modifiers.others.size() == 1 && modifiers.others[0] == entry.name) return entry.op;
  }
  decoder.fail("unknown atomic operation");
}

void check_atomic_type(const FunctionDecoder& decoder, AtomicOp op, Type type) {
  const bool half = type == Type::kF16 || type == Type::kF16x2 || type == Type::kBF16 || type == Type::kBF16x2;
  bool known = false;
  switch (op) {
    case AtomicOp::kExchange:
      known = type == Type::kB32 || type == Type::kB64;
      break;
    case AtomicOp::kCompareSwap:
      known = type == Type::kB16 || type == Type::kB32 || type == Type::kB64;
      break;
    case AtomicOp::kAnd:
    case AtomicOp::kOr:
    case AtomicOp::kXor:
      known = type == Type::kB32 || type == Type::kB64;
      break;
    case AtomicOp::kInc:
    case AtomicOp::kDec:
      known = type == Type::kU32;
      break;
    case AtomicOp::kAdd:
      known = half || type == Type::kU32 || type == Type::kS32 || type == Type::kU64 || type == Type::kF32 ||
              type == Type::kF64;
      break;
    case AtomicOp::kMin:
    case AtomicOp::kMax:
      known = is_integer(type) && size_of(type) >= 4;
      break;
  }
  decoder.require(known, "this atomic operation does not take this type");
}

void atomic_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  const bool returns = decoder.source().opcode == "atom";
  decoder.require(modifiers.types.size() == 1 && !modifiers.rounding, "expected one type");
  constexpr uint64_t allowed = kMemoryFlags | kFlagAnd | kFlagOr | kFlagXor | kFlagNoFtz;
  decoder.require(!(modifiers.flags & ~allowed), "a modifier does not apply to this instruction");
  const Type type = modifiers.types[0];
  const AtomicOp op = atomic_op(decoder, modifiers);
  check_atomic_type(decoder, op, type);
  const bool swap = op == AtomicOp::kCompareSwap;
  const size_t first = returns ? 1 : 0;
  decoder.expect_operands(first + 2 + swap);
  const FunctionDecoder::Address address = decoder.address(decoder.operand(first));
  decoder.require(!address.entry_parameter, "kernel parameters cannot be stored to");
  const Space space = access_space(decoder, modifiers, address);
  Instruction instruction;
  set_address(instruction, address);
  instruction.b = decoder.use(decoder.operand(first + 1), type);
  if (swap) instruction.c = decoder.use(decoder.operand(first + 2), type);
  if (returns) instruction.dst = decoder.define(decoder.operand(0), type);
  instruction.u[0] = static_cast<uint8_t>(size_of(type));
  instruction.u[1] = static_cast<uint8_t>(op);
  instruction.u[2] = static_cast<uint8_t>(type);
  decoder.emit(instruction, {Op::kAtom, integer_of(size_of(type), false), Type::kNone, static_cast<uint8_t>(space)},
               space);
}

// ---- cp.async ----

bool is_only_other(const Modifiers& modifiers, std::string_view second) {
  return modifiers.others.size() == 2 && modifiers.others[0] == "async" && modifiers.others[1] == second;
}

// u[0] bytes copied; b the bytes read, the rest is zero; c a predicate that ignores the source (u[1] its negation).
void copy(FunctionDecoder& decoder, const Modifiers& modifiers) {
  decoder.require(modifiers.others.size() == 1 && modifiers.others[0] == "async", "unknown modifier of cp");
  decoder.require(!(modifiers.flags & ~uint64_t{kFlagCacheHint}), "a modifier does not apply to this instruction");
  decoder.require(
      modifiers.spaces.size() == 2 && modifiers.spaces[0] == Space::kShared && modifiers.spaces[1] == Space::kGlobal,
      "cp.async copies from .global to .shared");
  decoder.expect_operands(3, 4);
  const FunctionDecoder::Address to = decoder.address(decoder.operand(0));
  const FunctionDecoder::Address from = decoder.address(decoder.operand(1));
  decoder.require(!from.entry_parameter && !to.entry_parameter && from.wide,
                  "cp.async needs shared and global addresses");
  const int64_t bytes = decoder.immediate(decoder.operand(2));
  decoder.require(bytes == 4 || bytes == 8 || bytes == 16, "cp.async copies 4, 8 or 16 bytes");
  Instruction instruction;
  set_address(instruction, to);
  Extra* extra = decoder.new_extra();
  extra->src.push_back(from.base);
  extra->values.push_back(from.offset);
  instruction.u[0] = static_cast<uint8_t>(bytes);
  if (decoder.operand_count() == 4) {
    const Operand& last = decoder.operand(3);
    const bool predicate = decoder.is_register(last) && decoder.register_type(last) == Type::kPred;
    if (predicate || last.negated) {
      bool negated = false;
      instruction.c = decoder.use_predicate(last, negated);
      instruction.u[1] = negated;
    } else {
      instruction.b = decoder.use(last, Type::kU32);
    }
  }
  instruction.extra = extra;
  decoder.emit(instruction, {Op::kCpAsync}, Space::kGlobal);
}

void cp_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  if (is_only_other(modifiers, "commit_group")) {
    decoder.expect_operands(0);
    return decoder.emit({}, {Op::kCpAsyncCommit});
  }
  if (is_only_other(modifiers, "wait_group") || is_only_other(modifiers, "wait_all")) {
    const bool all = modifiers.others[1] == "wait_all";
    decoder.expect_operands(all ? 0 : 1);
    Instruction instruction;
    instruction.u[0] = all;
    instruction.offset = all ? 0 : decoder.immediate(decoder.operand(0));
    decoder.require(instruction.offset >= 0 && instruction.offset <= (1 << 20), "group count out of range");
    return decoder.emit(instruction, {Op::kCpAsyncWait});
  }
  copy(decoder, modifiers);
}

void prefetch_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  for (std::string_view name : modifiers.others) {
    decoder.require(name == "L1" || name == "L2" || name == "tensormap", "unknown cache level");
  }
  decoder.expect_operands(1);
  decoder.address(decoder.operand(0));
  decoder.emit({}, {Op::kPrefetch});
}

constexpr NamedRule kRules[] = {
    {"ld", ld_rule},
    {"ldu", ld_rule},
    {"st", st_rule},
    {"atom", atomic_rule},
    {"red", atomic_rule},
    {"cp", cp_rule},
    {"prefetch", prefetch_rule},
    {"prefetchu", prefetch_rule},
};

}  // namespace

RuleTable memory_rules() { return {std::begin(kRules), std::end(kRules)}; }

}  // namespace flopcuda::ptxvm
