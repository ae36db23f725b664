// Rules of control flow, barriers, fences and calls.
#include "decode/rules.h"

namespace flopcuda::ptxvm {
namespace {

using syntax::Operand;

void bra_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  decoder.expect_modifiers(modifiers, 0, kFlagUni);
  decoder.expect_operands(1);
  const Operand& target = decoder.operand(0);
  decoder.require(target.kind == Operand::Kind::kName && target.offset == 0 && !target.negated, "expected a label");
  decoder.emit_control({}, Op::kBranch, {decoder.label_position(target.name)});
}

void brx_rule(FunctionDecoder& decoder, const Modifiers& given) {
  Modifiers modifiers = given;
  decoder.require(modifiers.take("idx"), "expected brx.idx");
  decoder.expect_modifiers(modifiers, 0, kFlagUni);
  decoder.expect_operands(2);
  Instruction instruction;
  instruction.a = decoder.use(decoder.operand(0), Type::kU32);
  std::vector<size_t> targets;
  const Operand& list = decoder.operand(1);
  const syntax::Targets* labels = list.kind == Operand::Kind::kName ? decoder.targets_named(list.name) : nullptr;
  if (!labels || labels->of_calls) decoder.fail("branch targets '" + std::string(list.name) + "' are not defined");
  for (std::string_view label : labels->names) targets.push_back(decoder.label_position(label));
  decoder.emit_control(instruction, Op::kBranchIndexed, std::move(targets));
}

void leave(FunctionDecoder& decoder, const Modifiers& modifiers, uint64_t flags, Op op) {
  decoder.expect_modifiers(modifiers, 0, flags);
  decoder.expect_operands(0);
  decoder.emit_control({}, op);
}

// ret from the entry ends the thread.
void ret_rule(FunctionDecoder& d, const Modifiers& m) { leave(d, m, kFlagUni, d.in_entry() ? Op::kExit : Op::kReturn); }
void exit_rule(FunctionDecoder& d, const Modifiers& m) { leave(d, m, 0, Op::kExit); }
void trap_rule(FunctionDecoder& d, const Modifiers& m) { leave(d, m, 0, Op::kTrap); }

void nanosleep_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  decoder.expect_modifiers(modifiers, 1, 0);
  decoder.require(modifiers.types[0] == Type::kU32, "nanosleep needs .u32");
  decoder.expect_operands(1);
  Instruction instruction;
  instruction.a = decoder.use(decoder.operand(0), Type::kU32);
  decoder.emit_control(instruction, Op::kYield);
}

// ---- barriers. u[0] is the BarrierKind: 0 sync, 1 arrive, 2 red.popc, 3 red.and, 4 red.or; u[1] aligned; u[2]
// negation. ----

void warp_barrier(FunctionDecoder& decoder, const Modifiers& modifiers) {
  decoder.expect_modifiers(modifiers, 0, kFlagSync);
  decoder.require(modifiers.has(kFlagSync), "expected bar.warp.sync");
  decoder.expect_operands(1);
  Instruction instruction;
  instruction.c = decoder.use(decoder.operand(0), Type::kU32);
  decoder.emit_control(instruction, Op::kWarpBarrier);
}

// barrier.cluster: a cluster is one block here, whose threads arrive first and wait later.
void cluster_barrier(FunctionDecoder& decoder, Modifiers modifiers) {
  const bool arrive = modifiers.take("arrive");
  decoder.require(arrive || modifiers.take("wait"), "expected .arrive or .wait");
  decoder.expect_modifiers(modifiers, 0,
                           kFlagScope | kFlagAligned | (arrive ? kFlagRelease | kFlagRelaxed : kFlagAcquire));
  decoder.require(!(modifiers.has(kFlagRelease) && modifiers.has(kFlagRelaxed)),
                  ".release and .relaxed exclude each other");
  decoder.expect_operands(0);
  Instruction instruction;
  instruction.u[1] = modifiers.has(kFlagAligned);
  decoder.emit_control(instruction, arrive ? Op::kClusterArrive : Op::kClusterWait);
}

// A constant is known to be out of range before it runs; b is the number of threads, if there is one.
void use_barrier(FunctionDecoder& decoder, Instruction& instruction, const Operand& number, const Operand* threads) {
  const int64_t fewest = instruction.u[0] == 1 ? kLanes : 0;
  const auto in_range = [&](const Operand& operand, auto holds) {
    return operand.kind != Operand::Kind::kInteger || holds(decoder.immediate(operand));
  };
  decoder.require(in_range(number, [](int64_t n) { return n >= 0 && n < 16; }), "barriers are numbered from 0 to 15");
  instruction.a = decoder.use(number, Type::kU32);
  if (!threads) return;
  decoder.require(in_range(*threads, [&](int64_t n) { return n >= fewest && n % kLanes == 0; }),
                  "the number of threads at a barrier is a multiple of the warp's");
  instruction.b = decoder.use(*threads, Type::kU32);
}

void barrier_rule(FunctionDecoder& decoder, const Modifiers& given) {
  Modifiers modifiers = given;
  const bool bar = decoder.source().opcode == "bar";
  if (bar && modifiers.take("warp")) return warp_barrier(decoder, modifiers);
  if (!bar && modifiers.has(kFlagScope) && decoder.source().modifiers[0] == "cluster") {
    return cluster_barrier(decoder, modifiers);
  }
  const bool arrive = modifiers.take("arrive"), reduce = modifiers.take("red");
  decoder.require(modifiers.has(kFlagSync) + arrive + reduce == 1, "expected .sync, .arrive or .red");
  decoder.expect_modifiers(
      modifiers, reduce,
      kFlagSync | kFlagCta | (bar ? 0 : kFlagAligned) | (reduce ? kFlagPopc | kFlagAnd | kFlagOr : 0));
  Instruction instruction;
  instruction.u[1] = bar || modifiers.has(kFlagAligned);
  size_t next = 0;
  if (reduce) {
    const bool popc = modifiers.has(kFlagPopc);
    decoder.require(popc + modifiers.has(kFlagAnd) + modifiers.has(kFlagOr) == 1, "expected .popc, .and or .or");
    decoder.require(modifiers.types[0] == (popc ? Type::kU32 : Type::kPred), "popc gives .u32, and and or give .pred");
    instruction.u[0] = popc ? 2 : modifiers.has(kFlagAnd) ? 3 : 4;
    instruction.dst =
        popc ? decoder.define(decoder.operand(0), Type::kU32) : decoder.define_predicate(decoder.operand(0));
    next = 1;
    bool negated = false;
    instruction.c = decoder.use_predicate(decoder.operand(decoder.operand_count() - 1), negated);
    instruction.u[2] = negated;
  } else {
    instruction.u[0] = arrive;
  }
  const size_t end = decoder.operand_count() - (reduce ? 1 : 0);
  decoder.require(end > next && end <= next + 2 && (!arrive || end == next + 2), "wrong number of operands");
  use_barrier(decoder, instruction, decoder.operand(next), end == next + 2 ? &decoder.operand(next + 1) : nullptr);
  decoder.emit_control(instruction, Op::kBarrier);
}

// ---- fences: the machine's memory is coherent ----

void emit_fence(FunctionDecoder& decoder) {
  decoder.expect_operands(0);
  decoder.emit({}, {Op::kFence});
}

void proxy_fence(FunctionDecoder& decoder, Modifiers modifiers) {
  if (modifiers.take("alias")) {
    decoder.expect_modifiers(modifiers, 0, 0);
  } else if (modifiers.take("async")) {
    decoder.expect_modifiers(modifiers, 0, 0, 1);
    const Space space = modifiers.spaces.empty() ? Space::kGlobal : modifiers.spaces[0];
    decoder.require(space == Space::kGlobal || space == Space::kShared, "the fence is of .global or .shared memory");
  } else {
    decoder.require(decoder.source().opcode == "fence", "unknown proxy of a fence");
    decoder.require(modifiers.take("async::generic") || modifiers.take("tensormap::generic"),
                    "unknown proxy of a fence");
    modifiers.take("sync_restrict::shared::cta");
    modifiers.take("sync_restrict::shared::cluster");
    decoder.expect_modifiers(modifiers, 0, kFlagAcquire | kFlagRelease | kFlagCta | kFlagScope | kFlagSys);
  }
  emit_fence(decoder);
}

void membar_rule(FunctionDecoder& decoder, const Modifiers& given) {
  constexpr uint64_t levels = kFlagCta | kFlagGl | kFlagSys;
  Modifiers modifiers = given;
  if (modifiers.take("proxy")) return proxy_fence(decoder, modifiers);
  decoder.expect_modifiers(modifiers, 0, levels);
  decoder.require(modifiers.has(levels), "expected .cta, .gl or .sys");
  emit_fence(decoder);
}

void fence_rule(FunctionDecoder& decoder, const Modifiers& given) {
  constexpr uint64_t scopes = kFlagCta | kFlagScope | kFlagSys;
  constexpr uint64_t orders = kFlagSc | kFlagAcqRel | kFlagAcquire | kFlagRelease;
  Modifiers modifiers = given;
  if (modifiers.take("proxy")) return proxy_fence(decoder, modifiers);
  const bool after_initialisation = modifiers.take("mbarrier_init");
  decoder.expect_modifiers(modifiers, 0, scopes | (after_initialisation ? uint64_t{kFlagRelease} : orders));
  decoder.require(modifiers.has(scopes), "expected a scope");
  emit_fence(decoder);
}

// ---- hints: of no consequence here ----

void griddepcontrol_rule(FunctionDecoder& decoder, const Modifiers& given) {
  Modifiers modifiers = given;
  decoder.require(modifiers.take("launch_dependents") || modifiers.take("wait"),
                  "expected .launch_dependents or .wait");
  decoder.expect_modifiers(modifiers, 0, 0);
  emit_fence(decoder);
}

void pmevent_rule(FunctionDecoder& decoder, const Modifiers& given) {
  Modifiers modifiers = given;
  const bool mask = modifiers.take("mask");
  decoder.expect_modifiers(modifiers, 0, 0);
  decoder.expect_operands(1);
  const int64_t event = decoder.immediate(decoder.operand(0));
  decoder.require(event >= 0 && event <= (mask ? 0xffff : 15), "event out of range");
  decoder.emit({}, {Op::kFence});
}

void setmaxnreg_rule(FunctionDecoder& decoder, const Modifiers& given) {
  Modifiers modifiers = given;
  decoder.require(modifiers.take("inc") || modifiers.take("dec"), "expected .inc or .dec");
  decoder.expect_modifiers(modifiers, 1, kFlagSync | kFlagAligned);
  decoder.require(modifiers.has(kFlagSync) && modifiers.has(kFlagAligned), "expected .sync.aligned");
  decoder.require(modifiers.types[0] == Type::kU32, "setmaxnreg needs .u32");
  decoder.expect_operands(1);
  const int64_t registers = decoder.immediate(decoder.operand(0));
  decoder.require(registers >= 24 && registers <= 256 && registers % 8 == 0,
                  "the register count is a multiple of 8 from 24 to 256");
  decoder.emit({}, {Op::kFence});
}

// ---- calls ----

struct NativeFunction {
  std::string_view name;
  Op op;
  std::vector<Type> arguments, returns;
};

const NativeFunction* native_named(std::string_view name) {
  static const NativeFunction kNatives[] = {
      {"vprintf", Op::kPrintf, {Type::kB64, Type::kB64}, {Type::kB32}},
      {"__assertfail", Op::kAssertFail, {Type::kB64, Type::kB64, Type::kB32, Type::kB64, Type::kB64}, {}},
      {"malloc", Op::kMalloc, {Type::kB64}, {Type::kB64}},
      {"free", Op::kFree, {Type::kB64}, {}},
  };
  for (const NativeFunction& native : kNatives) {
    if (native.name == name) return &native;
  }
  return nullptr;
}

std::vector<ParameterSlot> slots_of(const std::vector<Type>& types) {
  std::vector<ParameterSlot> slots;
  for (Type type : types) slots.push_back({0, size_of(type), 1, "", type, false});
  return slots;
}

struct CallOperands {
  const Operand* returns = nullptr;
  const Operand* callee = nullptr;
  const Operand* arguments = nullptr;
  const Operand* prototype = nullptr;
};

CallOperands split_call(const FunctionDecoder& decoder) {
  CallOperands result;
  size_t next = 0;
  if (decoder.operand(0).kind == Operand::Kind::kList) result.returns = &decoder.operand(next++);
  result.callee = &decoder.operand(next++);
  decoder.require(result.callee->kind == Operand::Kind::kName && result.callee->offset == 0, "expected a function");
  if (next < decoder.operand_count() && decoder.operand(next).kind == Operand::Kind::kList) {
    result.arguments = &decoder.operand(next++);
  }
  if (next < decoder.operand_count()) result.prototype = &decoder.operand(next++);
  decoder.expect_operands(next);
  return result;
}

void check_argument(const FunctionDecoder& decoder, const ParameterSlot& wanted, const ParameterSlot& given) {
  const bool types = is_untyped(wanted.type) || is_untyped(given.type) || wanted.type == given.type ||
                     (is_integer(wanted.type) && is_integer(given.type));
  decoder.require(wanted.size == given.size && types, "a parameter has another type than in its function");
  decoder.require(given.align >= wanted.align, "a parameter is aligned to less than in its function");
}

// The frame offsets of the .param variables that a call names, checked against what the callee has.
std::vector<int64_t> frame_offsets(FunctionDecoder& decoder, const Operand* list,
                                   const std::vector<ParameterSlot>& slots) {
  std::vector<int64_t> offsets;
  const size_t count = list ? list->items.size() : 0;
  if (slots.size() != count) decoder.fail("the call has another number of parameters than its function");
  for (size_t i = 0; i < count; ++i) {
    const ParameterSlot* slot = decoder.local_slot(list->items[i].name);
    if (!slot) decoder.fail("arguments of a call must be .param variables");
    check_argument(decoder, slots[i], *slot);
    offsets.push_back(slot->offset);
  }
  return offsets;
}

void call_native(FunctionDecoder& decoder, const NativeFunction& native, const CallOperands& operands) {
  Extra* extra = decoder.new_extra();
  extra->values = frame_offsets(decoder, operands.arguments, slots_of(native.arguments));
  const std::vector<int64_t> returns =
      frame_offsets(decoder, operands.returns, slots_of(operands.returns ? native.returns : std::vector<Type>{}));
  extra->values.insert(extra->values.end(), returns.begin(), returns.end());
  Instruction instruction;
  instruction.extra = extra;
  instruction.u[0] = static_cast<uint8_t>(returns.size());
  decoder.emit(instruction, {native.op});
  if (native.op == Op::kAssertFail) decoder.pending().back().is_control = true;
}

int64_t add_call(FunctionDecoder& decoder, CallSite site) {
  decoder.function().calls.push_back(std::move(site));
  return static_cast<int64_t>(decoder.function().calls.size()) - 1;
}

void call_direct(FunctionDecoder& decoder, uint32_t module_index, const CallOperands& operands) {
  const syntax::Function& callee = decoder.environment().module->functions[module_index];
  decoder.require(!callee.is_entry, "a kernel cannot be called");
  CallSite site;
  const int64_t end = lay_out_parameters(callee.parameters, 0, site.arguments);
  lay_out_parameters(callee.returns, end, site.returns);
  site.argument_from = frame_offsets(decoder, operands.arguments, site.arguments);
  site.return_to = frame_offsets(decoder, operands.returns, site.returns);
  site.callee = static_cast<uint32_t>(decoder.environment().program->function_of_module_index[module_index]);
  Instruction instruction;
  instruction.offset = add_call(decoder, std::move(site));
  decoder.emit_control(instruction, Op::kCall);
}

struct Interface {
  const std::vector<syntax::Variable>* parameters;
  const std::vector<syntax::Variable>* returns;
};

// What an indirect call says of its callee: a prototype, or a list of functions, which all have the same.
Interface interface_of(FunctionDecoder& decoder, const Operand* operand) {
  if (!operand || operand->kind != Operand::Kind::kName) decoder.fail("an indirect call needs a prototype");
  if (const syntax::Prototype* prototype = decoder.prototype_named(operand->name)) {
    return {&prototype->parameters, &prototype->returns};
  }
  const syntax::Targets* targets = decoder.targets_named(operand->name);
  if (!targets || !targets->of_calls) decoder.fail("prototype '" + std::string(operand->name) + "' is not defined");
  const Environment& environment = decoder.environment();
  const syntax::Function* first = nullptr;
  for (std::string_view name : targets->names) {
    const auto found = environment.module_function.find(name);
    if (found == environment.module_function.end()) decoder.fail("'" + std::string(name) + "' is not a function");
    if (!first) first = &environment.module->functions[found->second];
  }
  return {&first->parameters, &first->returns};
}

void call_indirect(FunctionDecoder& decoder, const CallOperands& operands) {
  const Interface interface = interface_of(decoder, operands.prototype);
  CallSite site;
  const int64_t end = lay_out_parameters(*interface.parameters, 0, site.arguments);
  lay_out_parameters(*interface.returns, end, site.returns);
  site.argument_from = frame_offsets(decoder, operands.arguments, site.arguments);
  site.return_to = frame_offsets(decoder, operands.returns, site.returns);
  Instruction instruction;
  instruction.a = decoder.use(*operands.callee, Type::kU64);
  instruction.offset = add_call(decoder, std::move(site));
  decoder.emit_control(instruction, Op::kCallIndirect);
}

void call_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  decoder.expect_modifiers(modifiers, 0, kFlagUni);
  const CallOperands operands = split_call(decoder);
  if (decoder.is_register(*operands.callee)) return call_indirect(decoder, operands);
  decoder.require(!operands.prototype, "a direct call takes no prototype");
  const Environment& environment = decoder.environment();
  const auto found = environment.module_function.find(operands.callee->name);
  if (found == environment.module_function.end()) {
    decoder.fail("function '" + std::string(operands.callee->name) + "' is not declared");
  }
  if (environment.module->functions[found->second].has_body) return call_direct(decoder, found->second, operands);
  if (const NativeFunction* native = native_named(operands.callee->name))
    return call_native(decoder, *native, operands);
  decoder.fail("external function '" + std::string(operands.callee->name) + "' is not known");
}

constexpr NamedRule kRules[] = {
    {"bra", bra_rule, 0},
    {"brx", brx_rule, 0},
    {"ret", ret_rule, 0},
    {"exit", exit_rule, 0},
    {"trap", trap_rule, 0},
    {"brkpt", trap_rule, 0},
    {"nanosleep", nanosleep_rule, kSuffixType},
    {"bar", barrier_rule, kSuffixType},
    {"barrier", barrier_rule, kSuffixType},
    {"membar", membar_rule, 0},
    {"fence", fence_rule, kSuffixSpace},
    {"call", call_rule, 0},
    {"griddepcontrol", griddepcontrol_rule, 0},
    {"pmevent", pmevent_rule, 0},
    {"setmaxnreg", setmaxnreg_rule, kSuffixType},
};

}  // namespace

RuleTable control_rules() { return {std::begin(kRules), std::end(kRules)}; }

}  // namespace flopcuda::ptxvm
