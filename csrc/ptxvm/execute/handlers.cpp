// The tables of all handlers, and their binding to a program.
#include "execute/handlers.h"

#include <cstdlib>
#include <string>

#include "error.h"
#include "execute/warp.h"
#include "execute/worker.h"

namespace flopcuda::ptxvm {
namespace {

void run_guarded(Warp& warp, const Instruction& instruction) {
  const uint32_t guard = warp.predicate(instruction.guard) ^ (instruction.guard_negated ? kAllLanes : 0);
  const uint32_t saved = warp.mask;
  const uint32_t active = saved & guard;
  if (active == 0) return;
  warp.worker->counters.instructions[instruction.index].lanes += static_cast<uint64_t>(__builtin_popcount(active));
  warp.mask = active;
  warp.launch->program.bodies[instruction.index](warp, instruction);
  warp.mask = saved;
}

struct InstructionSet {
  const char* name;
  bool (*add)(HandlerTable&);
};

bool add_portable(HandlerTable& table) {
  register_core_portable(table);
  return true;
}

constexpr InstructionSet kSets[] = {
    {"avx512", register_core_avx512}, {"avx2", register_core_avx2}, {"portable", add_portable}};

struct Handlers {
  HandlerTable table;
  const char* instruction_set = nullptr;

  explicit Handlers(const std::string& wanted) {
    for (const InstructionSet& set : kSets) {
      if ((wanted.empty() || wanted == set.name) && set.add(table)) {
        instruction_set = set.name;
        break;
      }
    }
    register_float(table);
    register_half(table);
    register_convert(table);
    register_atomic(table);
    register_async_copy(table);
    register_exchange(table);
    register_matrix(table);
    register_rest(table);
  }
};

Handlers& handlers() {
  static Handlers instance{std::string()};
  return instance;
}

const HandlerPair* find(const HandlerKey& key) {
  const HandlerTable& table = handlers().table;
  const HandlerPair* pair = table.find(key);
  // The common conversions have handlers of their own, the rest share one.
  if (!pair && key.op == Op::kConvert) pair = table.find({Op::kConvert});
  if (!pair && key.op == Op::kConvertPack2) pair = table.find({Op::kConvertPack2});
  return pair;
}

void bind_one(Instruction& instruction, Program& program, const syntax::Module& module) {
  const InstructionInfo& info = program.info[instruction.index];
  const HandlerPair* pair = find(info.key);
  if (!pair) {
    throw PtxError("this combination of modifiers is not supported", program.functions[info.function].name, info.line,
                   module.line_text(info.line));
  }
  instruction.full = pair->full;
  instruction.masked = pair->masked;
  program.bodies[instruction.index] = pair->masked;
}

bool needs_handler(Op op) { return op < Op::kBranch && op != Op::kAssertFail; }

}  // namespace

const char* lane_instruction_set() { return handlers().instruction_set; }

bool set_lane_instruction_set(const char* name) {
  Handlers other{std::string(name)};
  if (!other.instruction_set) return false;
  handlers() = std::move(other);
  return true;
}

void bind_handlers(Program& program, const syntax::Module& module) {
  program.bodies.assign(program.info.size(), nullptr);
  for (Function& function : program.functions) {
    for (Instruction& instruction : function.instructions) {
      bind_one(instruction, program, module);
      if (instruction.guard == kNoRef) continue;
      instruction.full = instruction.masked = run_guarded;
    }
    for (Instruction& control : function.controls) {
      if (needs_handler(control.op)) bind_one(control, program, module);
    }
  }
}

}  // namespace flopcuda::ptxvm
