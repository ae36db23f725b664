// Rules of the memory instructions.
//
// Decoded form: a is the address register, offset is added to it. u[0] bytes of an element, u[1] elements of a vector,
// u[2] bytes of the register, u[3] the AddressFlags.
#include <algorithm>
#include <initializer_list>

#include "decode/address_flags.h"
#include "decode/rules.h"

namespace flopcuda::ptxvm {
namespace {

using syntax::Operand;

constexpr uint64_t kScopes = kFlagCta | kFlagScope | kFlagSys;
constexpr uint64_t kPriorities = kFlagL1Priority | kFlagL2Priority;
constexpr uint64_t kLoadOperators = kFlagCa | kFlagCg | kFlagCs | kFlagLu | kFlagCv;
constexpr uint64_t kStoreOperators = kFlagWb | kFlagCg | kFlagCs | kFlagWt;
constexpr uint64_t kVectorFlags = kFlagV2 | kFlagV4 | kFlagV8;

int vector_count(const Modifiers& modifiers) {
  return modifiers.has(kFlagV2) ? 2 : modifiers.has(kFlagV4) ? 4 : modifiers.has(kFlagV8) ? 8 : 1;
}

// The space that an address in brackets is said to be in.
Space named_space(const FunctionDecoder& decoder, const Modifiers& modifiers) {
  decoder.require(modifiers.spaces.size() <= 1, "expected one state space");
  return modifiers.spaces.empty() ? Space::kGeneric : modifiers.spaces[0];
}

// The space of the access; constant memory and the parameters of device functions are ordinary memory.
Space access_space(const FunctionDecoder& decoder, Space named, const FunctionDecoder::Address& address) {
  const Space space = named == Space::kGeneric ? address.space : named;
  if (space == Space::kConst) return Space::kGlobal;
  return space == Space::kParam && (address.frame_relative || !decoder.in_entry()) ? Space::kLocal : space;
}

void require_space(const FunctionDecoder& decoder, const Modifiers& modifiers, std::initializer_list<Space> allowed) {
  for (Space space : modifiers.spaces) {
    decoder.require(std::find(allowed.begin(), allowed.end(), space) != allowed.end(),
                    "this state space does not apply here");
  }
}

// Loads and stores: .relaxed and .acquire or .release go with a scope, a cache operator with neither.
void check_ordering(const FunctionDecoder& decoder, const Modifiers& modifiers, uint64_t scoped) {
  const bool ordered = modifiers.has(scoped);
  const bool in_memory = modifiers.spaces.empty() || modifiers.spaces[0] == Space::kGlobal;
  decoder.require(ordered == modifiers.has(kScopes), ordered ? "expected a scope" : "a scope needs a memory order");
  decoder.require(!modifiers.has(kFlagMmio) || modifiers.has(kFlagRelaxed), ".mmio needs .relaxed");
  decoder.require(!modifiers.has(kLoadOperators | kStoreOperators) || !modifiers.has(scoped | kFlagVolatile),
                  "a cache operator does not go with a memory order");
  decoder.require(!modifiers.has(kPriorities) || (in_memory && !modifiers.has(kFlagVolatile)),
                  "a cache priority applies to .global memory, not .volatile");
  decoder.require(!modifiers.has(kPriorities) || !modifiers.has(kLoadOperators | kStoreOperators),
                  "a cache priority does not go with a cache operator");
  decoder.require(in_memory || modifiers.spaces[0] == Space::kShared || !modifiers.has(kFlagVolatile),
                  ".volatile applies to .global and .shared memory");
  decoder.require(in_memory || modifiers.spaces[0] == Space::kShared || !ordered,
                  "a memory order applies to .global and .shared memory");
}

// A relaxed, acquiring or releasing access does not race with another.
uint8_t strength(const Modifiers& modifiers) {
  return modifiers.flags & (kFlagRelaxed | kFlagAcquire | kFlagRelease | kFlagMmio) ? kStrong : 0;
}

void check_element(const FunctionDecoder& decoder, Type type, int count) {
  const bool plain =
      is_integer(type) || (is_untyped(type) && type != Type::kB128) || type == Type::kF32 || type == Type::kF64;
  decoder.require(plain, "this type cannot be loaded or stored");
  const int bytes = size_of(type) * count;
  decoder.require(bytes <= 16 || (bytes == 32 && size_of(type) >= 4), "vector over 16 bytes");
}

void load(FunctionDecoder& decoder, const Modifiers& modifiers) {
  decoder.require(modifiers.types.size() == 1, "expected one type");
  decoder.expect_operands(2);
  const Type type = modifiers.types[0];
  const int count = vector_count(modifiers);
  check_element(decoder, type, count);
  const Space named = named_space(decoder, modifiers);
  const FunctionDecoder::Address address = decoder.address_in(decoder.operand(1), named);
  const Space space = access_space(decoder, named, address);
  Instruction instruction;
  set_address(instruction, address);
  instruction.u[3] |= strength(modifiers);
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
      if (decoder.is_sink(item)) {
        extra->dst.push_back(kNoRef);
        continue;
      }
      extra->dst.push_back(decoder.define_at_least(item, type, size));
      decoder.require(widest == 0 || widest == size, "registers of different widths");
      widest = size;
    }
    if (widest != 0) size = widest;
  }
  if (size == 1) size = 4;  // all discarded
  instruction.extra = extra;
  instruction.u[0] = static_cast<uint8_t>(size_of(type));
  instruction.u[1] = static_cast<uint8_t>(count);
  instruction.u[2] = static_cast<uint8_t>(size);
  const Type memory = integer_of(size_of(type), is_signed(type));
  const Type reg = integer_of(size);
  if (address.entry_parameter) return decoder.emit(instruction, {Op::kLoadParam, memory, reg}, space);
  decoder.emit(instruction, {Op::kLoad, memory, reg, static_cast<uint8_t>(space)}, space);
}

void ld_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  constexpr uint64_t scoped = kFlagRelaxed | kFlagAcquire;
  decoder.only_flags(modifiers, kVectorFlags | kFlagWeak | kFlagVolatile | kFlagMmio | kFlagNc | scoped | kScopes |
                                    kLoadOperators | kPriorities | kFlagL2Prefetch);
  check_ordering(decoder, modifiers, scoped);
  const bool global = modifiers.spaces.size() == 1 && modifiers.spaces[0] == Space::kGlobal;
  decoder.require(!modifiers.has(kFlagNc) || (global && !modifiers.has(scoped | kFlagVolatile | kFlagLu | kFlagCv)),
                  ".nc applies to weak loads of .global memory");
  decoder.require(!modifiers.has(kFlagL2Prefetch) || global || modifiers.spaces.empty(),
                  "a prefetch applies to .global memory");
  load(decoder, modifiers);
}

void ldu_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  decoder.only_flags(modifiers, kVectorFlags);
  require_space(decoder, modifiers, {Space::kGlobal});
  load(decoder, modifiers);
}

void st_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  constexpr uint64_t scoped = kFlagRelaxed | kFlagRelease;
  decoder.only_flags(modifiers, kVectorFlags | kFlagWeak | kFlagVolatile | kFlagMmio | scoped | kScopes |
                                    kStoreOperators | kPriorities);
  check_ordering(decoder, modifiers, scoped);
  require_space(decoder, modifiers, {Space::kGlobal, Space::kShared, Space::kLocal, Space::kParam});
  decoder.require(modifiers.types.size() == 1, "expected one type");
  decoder.expect_operands(2);
  const Type type = modifiers.types[0];
  const int count = vector_count(modifiers);
  check_element(decoder, type, count);
  const Space named = named_space(decoder, modifiers);
  const FunctionDecoder::Address address = decoder.address_in(decoder.operand(0), named);
  decoder.require(!address.entry_parameter, "kernel parameters cannot be stored to");
  const Space space = access_space(decoder, named, address);
  Instruction instruction;
  set_address(instruction, address);
  instruction.u[3] |= strength(modifiers);
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
  const Type memory = integer_of(size_of(type));
  decoder.emit(instruction, {Op::kStore, memory, Type::kNone, static_cast<uint8_t>(space)}, space);
}

// ---- atom, red: u[0] bytes of all elements, u[1] the AtomicOp, u[2] the type; vectors have their registers in extra.
// ----

struct NamedAtomic {
  std::string_view name;
  AtomicOp op;
};

constexpr NamedAtomic kAtomics[] = {
    {"exch", AtomicOp::kExchange}, {"cas", AtomicOp::kCompareSwap}, {"add", AtomicOp::kAdd}, {"inc", AtomicOp::kInc},
    {"dec", AtomicOp::kDec},       {"min", AtomicOp::kMin},         {"max", AtomicOp::kMax},
};

AtomicOp atomic_op(const FunctionDecoder& decoder, const Modifiers& modifiers) {
  const bool logic = modifiers.has(kFlagAnd | kFlagOr | kFlagXor);
  decoder.require(modifiers.others.size() == (logic ? 0 : 1), "expected one atomic operation");
  if (modifiers.has(kFlagAnd)) return AtomicOp::kAnd;
  if (modifiers.has(kFlagOr)) return AtomicOp::kOr;
  if (modifiers.has(kFlagXor)) return AtomicOp::kXor;
  for (const NamedAtomic& entry : kAtomics) {
    if (modifiers.others[0] == entry.name) return entry.op;
  }
  decoder.fail("unknown atomic operation");
}

bool is_half(Type type) {
  return type == Type::kF16 || type == Type::kF16x2 || type == Type::kBF16 || type == Type::kBF16x2;
}

void check_atomic_type(const FunctionDecoder& decoder, AtomicOp op, Type type) {
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
      known = is_half(type) || type == Type::kU32 || type == Type::kS32 || type == Type::kU64 || type == Type::kF32 ||
              type == Type::kF64;
      break;
    case AtomicOp::kMin:
    case AtomicOp::kMax:
      known = is_integer(type) && size_of(type) >= 4;
      break;
  }
  decoder.require(known, "this atomic operation does not take this type");
}

void check_atomic_flags(const FunctionDecoder& decoder, const Modifiers& modifiers, AtomicOp op, Type type,
                        bool returns) {
  const uint64_t orders = kFlagRelaxed | kFlagRelease | (returns ? kFlagAcquire | kFlagAcqRel : 0);
  Modifiers rest = modifiers;
  rest.others.clear();  // the operation
  decoder.only_flags(rest, orders | kScopes | kFlagAnd | kFlagOr | kFlagXor | kFlagNoFtz | kVectorFlags);
  require_space(decoder, modifiers, {Space::kGlobal, Space::kShared});
  decoder.require(is_half(type) == modifiers.has(kFlagNoFtz),
                  is_half(type) ? "expected .noftz" : ".noftz needs half precision");
  decoder.require(returns || (op != AtomicOp::kExchange && op != AtomicOp::kCompareSwap),
                  "red does not know this operation");
}

// Each element is added to atomically by itself.
void atomic_vector(FunctionDecoder& decoder, const Modifiers& modifiers, Instruction& instruction, size_t first) {
  const Type type = modifiers.types[0];
  const int count = vector_count(modifiers), most = size_of(type) == 2 ? 8 : 4;
  decoder.require(static_cast<AtomicOp>(instruction.u[1]) == AtomicOp::kAdd && (is_half(type) || type == Type::kF32) &&
                      count <= most,
                  "this atomic operation does not take this vector");
  require_space(decoder, modifiers, {Space::kGlobal});
  const auto elements = [&](const Operand& operand) -> const std::vector<Operand>& {
    decoder.require(operand.kind == Operand::Kind::kVector && static_cast<int>(operand.items.size()) == count,
                    "expected a vector of registers");
    return operand.items;
  };
  Extra* extra = decoder.new_extra();
  for (const Operand& item : elements(decoder.operand(first + 1))) extra->src.push_back(decoder.use(item, type));
  extra->dst.assign(static_cast<size_t>(count), kNoRef);
  for (size_t i = 0; first == 1 && i < extra->dst.size(); ++i) {
    extra->dst[i] = decoder.define_or_discard(elements(decoder.operand(0))[i], type);
  }
  instruction.extra = extra;
  instruction.u[0] = static_cast<uint8_t>(size_of(type) * count);
}

void atomic_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  const bool returns = decoder.source().opcode == "atom";
  decoder.require(modifiers.types.size() == 1, "expected one type");
  const Type type = modifiers.types[0];
  const AtomicOp op = atomic_op(decoder, modifiers);
  check_atomic_type(decoder, op, type);
  check_atomic_flags(decoder, modifiers, op, type, returns);
  const bool swap = op == AtomicOp::kCompareSwap;
  const size_t first = returns ? 1 : 0;
  decoder.expect_operands(first + 2 + swap);
  const Space named = named_space(decoder, modifiers);
  const FunctionDecoder::Address address = decoder.address_in(decoder.operand(first), named);
  const Space space = access_space(decoder, named, address);
  Instruction instruction;
  set_address(instruction, address);
  instruction.u[0] = static_cast<uint8_t>(size_of(type));
  instruction.u[1] = static_cast<uint8_t>(op);
  instruction.u[2] = static_cast<uint8_t>(type);
  if (modifiers.has(kVectorFlags)) {
    atomic_vector(decoder, modifiers, instruction, first);
  } else {
    instruction.b = decoder.use(decoder.operand(first + 1), type);
    if (swap) instruction.c = decoder.use(decoder.operand(first + 2), type);
    if (returns) instruction.dst = decoder.define_or_discard(decoder.operand(0), type);
  }
  decoder.emit(instruction, {Op::kAtom, integer_of(size_of(type)), Type::kNone, static_cast<uint8_t>(space)}, space);
}

// ---- cp.async ----

// u[0] bytes copied; b the bytes read, the rest is zero; c a predicate that ignores the source (u[1] its negation).
void copy(FunctionDecoder& decoder, const Modifiers& modifiers) {
  decoder.only_flags(modifiers, kFlagCa | kFlagCg | kFlagL2Prefetch);
  decoder.require(modifiers.has(kFlagCa | kFlagCg), "expected .ca or .cg");
  decoder.require(
      modifiers.spaces.size() == 2 && modifiers.spaces[0] == Space::kShared && modifiers.spaces[1] == Space::kGlobal,
      "cp.async copies from .global to .shared");
  decoder.expect_operands(3, 4);
  const FunctionDecoder::Address to = decoder.address_in(decoder.operand(0), Space::kShared);
  const FunctionDecoder::Address from = decoder.address_in(decoder.operand(1), Space::kGlobal);
  decoder.require(from.wide, "a global address has 64 bits");
  const int64_t bytes = decoder.immediate(decoder.operand(2));
  decoder.require(bytes == 16 || (modifiers.has(kFlagCa) && (bytes == 4 || bytes == 8)),
                  "cp.async copies 16 bytes, with .ca also 4 or 8");
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
      decoder.require(last.kind != Operand::Kind::kInteger || last.bits <= static_cast<uint64_t>(bytes),
                      "cp.async reads no more than it writes");
    }
  }
  instruction.extra = extra;
  decoder.emit(instruction, {Op::kCpAsync}, Space::kGlobal);
}

void cp_rule(FunctionDecoder& decoder, const Modifiers& given) {
  Modifiers modifiers = given;
  decoder.require(modifiers.take("async"), "only cp.async is supported");
  const bool commit = modifiers.take("commit_group"), one = modifiers.take("wait_group");
  const bool all = modifiers.take("wait_all");
  if (!commit && !one && !all) return copy(decoder, modifiers);
  decoder.only_flags(modifiers, 0);
  decoder.only_suffixes(0);
  decoder.require(commit + one + all == 1, "expected one of .commit_group, .wait_group and .wait_all");
  decoder.expect_operands(one ? 1 : 0);
  if (commit) return decoder.emit({}, {Op::kCpAsyncCommit});
  Instruction instruction;
  instruction.u[0] = all;
  instruction.offset = all ? 0 : decoder.immediate(decoder.operand(0));
  decoder.require(instruction.offset >= 0 && instruction.offset <= (1 << 20), "group count out of range");
  decoder.emit(instruction, {Op::kCpAsyncWait});
}

void prefetch(FunctionDecoder& decoder, const Modifiers& modifiers, Space space) {
  decoder.only_flags(modifiers, 0);
  decoder.expect_operands(1);
  decoder.address_in(decoder.operand(0), space);
  decoder.emit({}, {Op::kPrefetch});
}

void prefetch_rule(FunctionDecoder& decoder, const Modifiers& given) {
  Modifiers modifiers = given;
  decoder.require(modifiers.take("L1") != modifiers.take("L2"), "expected .L1 or .L2");
  require_space(decoder, modifiers, {Space::kGlobal, Space::kLocal});
  prefetch(decoder, modifiers, named_space(decoder, modifiers));
}

void prefetchu_rule(FunctionDecoder& decoder, const Modifiers& given) {
  Modifiers modifiers = given;
  decoder.require(modifiers.take("L1"), "expected .L1");
  prefetch(decoder, modifiers, Space::kGlobal);
}

constexpr NamedRule kRules[] = {
    {"ld", ld_rule, kSuffixType | kSuffixSpace},      {"ldu", ldu_rule, kSuffixType | kSuffixSpace},
    {"st", st_rule, kSuffixType | kSuffixSpace},      {"atom", atomic_rule, kSuffixType | kSuffixSpace},
    {"red", atomic_rule, kSuffixType | kSuffixSpace}, {"cp", cp_rule, kSuffixSpace},
    {"prefetch", prefetch_rule, kSuffixSpace},        {"prefetchu", prefetchu_rule, 0},
};

}  // namespace

RuleTable memory_rules() { return {std::begin(kRules), std::end(kRules)}; }

}  // namespace flopcuda::ptxvm
