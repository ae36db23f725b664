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
  for (std::string_view label : decoder.targets_named(decoder.operand(1).name)) {
    targets.push_back(decoder.label_position(label));
  }
  decoder.emit_control(instruction, Op::kBranchIndexed, std::move(targets));
}

void leave(FunctionDecoder& decoder, const Modifiers& modifiers, Op op) {
  decoder.expect_modifiers(modifiers, 0, kFlagUni);
  decoder.expect_operands(0);
  decoder.emit_control({}, op);
}

// ret from the entry ends the thread.
void ret_rule(FunctionDecoder& d, const Modifiers& m) { leave(d, m, d.in_entry() ? Op::kExit : Op::kReturn); }
void exit_rule(FunctionDecoder& d, const Modifiers& m) { leave(d, m, Op::kExit); }
void trap_rule(FunctionDecoder& d, const Modifiers& m) { leave(d, m, Op::kTrap); }

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
  instruction.c = decoder.use(decoder.operand(0), Type::kB32);
  decoder.emit_control(instruction, Op::kWarpBarrier);
}

void barrier_rule(FunctionDecoder& decoder, const Modifiers& given) {
  Modifiers modifiers = given;
  const bool bar = decoder.source().opcode == "bar";
  if (bar && modifiers.take("warp")) return warp_barrier(decoder, modifiers);
  const bool arrive = modifiers.take("arrive"), reduce = modifiers.take("red");
  decoder.require(modifiers.has(kFlagSync) + arrive + reduce == 1, "expected .sync, .arrive or .red");
  decoder.expect_modifiers(
      modifiers, reduce,
      kFlagSync | kFlagScope | (bar ? 0 : kFlagAligned) | (reduce ? kFlagPopc | kFlagAnd | kFlagOr : 0));
  decoder.require(!modifiers.has(kFlagScope) || decoder.source().modifiers[0] == "cta",
                  "only barriers of a .cta are supported");
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
  instruction.a = decoder.use(decoder.operand(next), Type::kU32);
  if (end == next + 2) instruction.b = decoder.use(decoder.operand(next + 1), Type::kU32);
  decoder.emit_control(instruction, Op::kBarrier);
}

// ---- fences: the machine's memory is coherent ----

void fence_rule(FunctionDecoder& decoder, const Modifiers& given) {
  constexpr std::string_view kProxies[] = {"alias", "async", "async::generic", "tensormap::generic"};
  constexpr uint64_t kOrders = kFlagSc | kFlagAcqRel | kFlagAcquire | kFlagRelease;
  Modifiers modifiers = given;
  const bool proxy = modifiers.take("proxy");
  bool named = false;
  for (std::string_view name : kProxies) named |= proxy && modifiers.take(name);
  decoder.require(proxy == named, "unknown proxy of a fence");
  if (decoder.source().opcode == "fence") {
    modifiers.take("mbarrier_init");
    modifiers.take("sync_restrict::shared::cta");
    modifiers.take("sync_restrict::shared::cluster");
  }
  decoder.expect_modifiers(modifiers, 0, kFlagScope | (decoder.source().opcode == "fence" ? kOrders : 0), proxy);
  decoder.require(proxy || modifiers.has(kFlagScope), "expected a scope");
  decoder.expect_operands(0);
  decoder.emit({}, {Op::kFence});
}

// ---- hints: of no consequence here ----

void griddepcontrol_rule(FunctionDecoder& decoder, const Modifiers& given) {
  Modifiers modifiers = given;
  decoder.require(modifiers.take("launch_dependents") || modifiers.take("wait"),
                  "expected .launch_dependents or .wait");
  decoder.expect_modifiers(modifiers, 0, 0);
  decoder.expect_operands(0);
  decoder.emit({}, {Op::kFence});
}

void pmevent_rule(FunctionDecoder& decoder, const Modifiers& given) {
  Modifiers modifiers = given;
  modifiers.take("mask");
  decoder.expect_modifiers(modifiers, 0, 0);
  decoder.expect_operands(1);
  decoder.immediate(decoder.operand(0));
  decoder.emit({}, {Op::kFence});
}

void setmaxnreg_rule(FunctionDecoder& decoder, const Modifiers& given) {
  Modifiers modifiers = given;
  decoder.require(modifiers.take("inc") || modifiers.take("dec"), "expected .inc or .dec");
  decoder.expect_modifiers(modifiers, 1, kFlagSync | kFlagAligned);
  decoder.require(modifiers.types[0] == Type::kU32, "setmaxnreg needs .u32");
  decoder.expect_operands(1);
  decoder.immediate(decoder.operand(0));
  decoder.emit({}, {Op::kFence});
}

// ---- calls ----

using Sizes = std::vector<int64_t>;  // bytes of parameters

struct NativeFunction {
  std::string_view name;
  Op op;
  Sizes arguments, returns;
};

const NativeFunction* native_named(std::string_view name) {
  static const NativeFunction kNatives[] = {
      {"vprintf", Op::kPrintf, {8, 8}, {4}},
      {"__assertfail", Op::kAssertFail, {8, 8, 4, 8, 8}, {}},
      {"malloc", Op::kMalloc, {8}, {8}},
      {"free", Op::kFree, {8}, {}},
  };
  for (const NativeFunction& native : kNatives) {
    if (native.name == name) return &native;
  }
  return nullptr;
}

Sizes sizes_of(const std::vector<ParameterSlot>& slots) {
  Sizes sizes;
  for (const ParameterSlot& slot : slots) sizes.push_back(slot.size);
  return sizes;
}

struct CallOperands {
  const Operand* returns = nullptr;
  const Operand* callee = nullptr;
  const Operand* arguments = nullptr;
  const Operand* prototype = nullptr;
};

CallOperands split_call(FunctionDecoder& decoder) {
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

// The frame offsets of the .param variables that a call names, checked against what the callee has.
std::vector<int64_t> frame_offsets(FunctionDecoder& decoder, const Operand* list, const Sizes& sizes) {
  std::vector<int64_t> offsets;
  const size_t count = list ? list->items.size() : 0;
  if (sizes.size() != count) decoder.fail("the call has another number of parameters than its function");
  for (size_t i = 0; i < count; ++i) {
    const ParameterSlot* slot = decoder.local_slot(list->items[i].name);
    if (!slot) decoder.fail("arguments of a call must be .param variables");
    if (sizes[i] != slot->size) decoder.fail("a parameter has another size than in its function");
    offsets.push_back(slot->offset);
  }
  return offsets;
}

void call_native(FunctionDecoder& decoder, const NativeFunction& native, const CallOperands& operands) {
  Extra* extra = decoder.new_extra();
  extra->values = frame_offsets(decoder, operands.arguments, native.arguments);
  const std::vector<int64_t> returns =
      frame_offsets(decoder, operands.returns, operands.returns ? native.returns : Sizes{});
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
  site.argument_from = frame_offsets(decoder, operands.arguments, sizes_of(site.arguments));
  site.return_to = frame_offsets(decoder, operands.returns, sizes_of(site.returns));
  site.callee = static_cast<uint32_t>(decoder.environment().program->function_of_module_index[module_index]);
  Instruction instruction;
  instruction.offset = add_call(decoder, std::move(site));
  decoder.emit_control(instruction, Op::kCall);
}

void call_indirect(FunctionDecoder& decoder, const CallOperands& operands) {
  decoder.require(operands.prototype && operands.prototype->kind == Operand::Kind::kName,
                  "an indirect call needs a prototype");
  const syntax::Prototype* prototype = decoder.prototype_named(operands.prototype->name);
  if (!prototype) decoder.fail("prototype '" + std::string(operands.prototype->name) + "' is not defined");
  CallSite site;
  const int64_t end = lay_out_parameters(prototype->parameters, 0, site.arguments);
  lay_out_parameters(prototype->returns, end, site.returns);
  site.argument_from = frame_offsets(decoder, operands.arguments, sizes_of(site.arguments));
  site.return_to = frame_offsets(decoder, operands.returns, sizes_of(site.returns));
  Instruction instruction;
  instruction.a = decoder.use(*operands.callee, Type::kU64);
  instruction.offset = add_call(decoder, std::move(site));
  decoder.emit_control(instruction, Op::kCallIndirect);
}

void call_rule(FunctionDecoder& decoder, const Modifiers& modifiers) {
  decoder.expect_modifiers(modifiers, 0, kFlagUni);
  const CallOperands operands = split_call(decoder);
  if (decoder.is_register(*operands.callee)) return call_indirect(decoder, operands);
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
    {"bra", bra_rule},
    {"brx", brx_rule},
    {"ret", ret_rule},
    {"exit", exit_rule},
    {"trap", trap_rule},
    {"brkpt", trap_rule},
    {"nanosleep", nanosleep_rule},
    {"bar", barrier_rule},
    {"barrier", barrier_rule},
    {"membar", fence_rule},
    {"fence", fence_rule},
    {"call", call_rule},
    {"griddepcontrol", griddepcontrol_rule},
    {"pmevent", pmevent_rule},
    {"setmaxnreg", setmaxnreg_rule},
};

}  // namespace

RuleTable control_rules() { return {std::begin(kRules), std::end(kRules)}; }

}  // namespace flopcuda::ptxvm
