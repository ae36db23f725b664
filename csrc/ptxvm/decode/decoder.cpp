// Syntax tree -> programs.
#include "decode/decoder.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>

#include "decode/flow.h"
#include "decode/function_decoder.h"
#include "decode/registers.h"
#include "error.h"

namespace flopcuda::ptxvm {
namespace {

constexpr int64_t kMaxSharedBytes = 228 * 1024;
constexpr int64_t kMaxModuleBytes = int64_t{1} << 30;
constexpr int64_t kMaxFrameBytes = int64_t{1} << 24;

int64_t align_up(int64_t value, int64_t align) { return (value + align - 1) / align * align; }

class ModuleDecoder {
 public:
  explicit ModuleDecoder(syntax::Module module) { out_.syntax = std::move(module); }

  DecodedModule run() {
    index_functions();
    place_variables();
    relocate();
    for (uint32_t f = 0; f < syntax().functions.size(); ++f) {
      const syntax::Function& function = syntax().functions[f];
      if (function.is_entry && function.has_body) out_.programs.push_back(link(f));
    }
    check_unreached();
    return std::move(out_);
  }

 private:
  const syntax::Module& syntax() const { return out_.syntax; }

  [[noreturn]] void fail(const std::string& message, int line, std::string_view kernel = "") const {
    throw PtxError(message, std::string(kernel), line, syntax().line_text(line));
  }

  // A definition takes the place of its earlier declarations.
  void index_functions() {
    for (uint32_t f = 0; f < syntax().functions.size(); ++f) {
      const syntax::Function& function = syntax().functions[f];
      const auto [entry, added] = functions_.emplace(function.name, f);
      if (added) continue;
      if (!function.has_body) continue;
      if (syntax().functions[entry->second].has_body) fail("function is defined twice", function.line, function.name);
      entry->second = f;
    }
  }

  // ---- .global and .const ----

  static bool in_memory(const syntax::Variable& variable) {
    return variable.space == Space::kGlobal || variable.space == Space::kConst;
  }

  template <class Visit>
  static void for_each_variable(const syntax::Function& function, Visit visit) {
    for (const syntax::Statement& statement : function.body) {
      if (const auto* variable = std::get_if<syntax::Variable>(&statement)) visit(*variable);
    }
  }

  void place_variables() {
    for (const syntax::Variable& variable : syntax().variables) {
      if (in_memory(variable) && !variable.is_declaration) memory_.insert_or_assign(variable.name, place(variable));
    }
    for (const syntax::Variable& variable : syntax().variables) {
      if (variable.is_declaration) defined(variable);
    }
    for (const syntax::Function& function : syntax().functions) {
      for_each_variable(function, [&](const syntax::Variable& variable) {
        if (in_memory(variable)) place_of_[&variable] = variable.is_declaration ? defined(variable) : place(variable);
      });
    }
  }

  uint64_t defined(const syntax::Variable& variable) const {
    const auto found = memory_.find(variable.name);
    if (found != memory_.end()) return found->second;
    fail("external variable '" + std::string(variable.name) + "' is not defined", variable.line);
  }

  uint64_t place(const syntax::Variable& variable) {
    placed_bytes_ += variable.size;
    if (placed_bytes_ > kMaxModuleBytes) fail("more than 1 GiB of variables", variable.line);
    const size_t align = static_cast<size_t>(std::max<int64_t>(variable.align, 256));
    // Memory fresh from the system is not touched until a kernel does.
    auto* memory = static_cast<uint8_t*>(std::calloc(static_cast<size_t>(variable.size) + align, 1));
    if (!memory) fail("no memory for variable '" + std::string(variable.name) + "'", variable.line);
    out_.memory.emplace_back(memory, &std::free);
    uint8_t* const place = memory + align - reinterpret_cast<uint64_t>(memory) % align;
    std::copy(variable.initial.begin(), variable.initial.end(), place);
    out_.variables.push_back(
        {std::string(variable.name), variable.space, reinterpret_cast<uint64_t>(place), variable.size});
    initialised_.push_back({&variable, place});
    return reinterpret_cast<uint64_t>(place);
  }

  void relocate() {
    for (const auto& [variable, place] : initialised_) {
      for (const syntax::Relocation& entry : variable->relocations) {
        const uint64_t value = relocated_value(*variable, entry) + entry.addend;
        std::memcpy(place + entry.position, &value, sizeof value);
      }
    }
  }

  uint64_t relocated_value(const syntax::Variable& variable, const syntax::Relocation& entry) {
    if (const auto found = memory_.find(entry.symbol); found != memory_.end()) return found->second;
    if (const auto found = functions_.find(entry.symbol); found != functions_.end()) {
      taken_.insert(found->second);
      return kFunctionWindow + 16 * uint64_t{found->second};
    }
    fail("initial value names '" + std::string(entry.symbol) + "', which is not defined", variable.line);
  }

  // ---- programs ----

  struct Reach {
    std::vector<uint32_t> functions;   // the entry first
    std::set<std::string_view> names;  // everything the bodies mention
    bool indirect = false;
  };

  static void collect_names(const syntax::Operand& operand, std::set<std::string_view>& names) {
    if (!operand.name.empty()) names.insert(operand.name);
    for (const syntax::Operand& item : operand.items) collect_names(item, names);
  }

  Reach reach(uint32_t entry) const {
    Reach result;
    std::set<uint32_t> seen{entry};
    result.functions.push_back(entry);
    const auto add = [&](uint32_t f) {
      if (syntax().functions[f].has_body && seen.insert(f).second) result.functions.push_back(f);
    };
    for (size_t i = 0; i < result.functions.size(); ++i) {
      std::set<std::string_view> names;
      for (const syntax::Statement& statement : syntax().functions[result.functions[i]].body) {
        const auto* instruction = std::get_if<syntax::Instruction>(&statement);
        if (!instruction) continue;
        for (const syntax::Operand& operand : instruction->operands) collect_names(operand, names);
        result.indirect |= instruction->opcode == "call" && is_indirect(*instruction);
      }
      for (std::string_view name : names) {
        if (const auto found = functions_.find(name); found != functions_.end()) add(found->second);
      }
      result.names.insert(names.begin(), names.end());
      // Any function whose address was taken may be called.
      if (result.indirect)
        for (uint32_t f : taken_) add(f);
    }
    return result;
  }

  bool is_indirect(const syntax::Instruction& call) const {
    for (const syntax::Operand& operand : call.operands) {
      if (operand.kind == syntax::Operand::Kind::kName) return !functions_.count(operand.name);
    }
    return false;
  }

  std::unique_ptr<Program> link(uint32_t entry) {
    const Reach reached = reach(entry);
    auto program = std::make_unique<Program>();
    const syntax::Function& source = syntax().functions[entry];
    program->name = std::string(source.name);
    program->max_threads = source.max_threads;
    program->has_indirect_calls = reached.indirect;
    program->function_of_module_index.assign(syntax().functions.size(), -1);
    for (size_t i = 0; i < reached.functions.size(); ++i) {
      program->function_of_module_index[reached.functions[i]] = static_cast<int64_t>(i);
    }
    std::map<std::pair<int, uint64_t>, Ref> constants;
    Environment environment;
    environment.module = &syntax();
    environment.program = program.get();
    environment.memory = memory_;
    environment.place_of = place_of_;
    environment.module_function = functions_;
    environment.constants = &constants;
    place_shared(reached, *program, environment);
    program->functions.resize(reached.functions.size());
    for (size_t i = 0; i < reached.functions.size(); ++i) {
      program->functions[i].module_index = reached.functions[i];
      assemble(environment, syntax().functions[reached.functions[i]], program->functions[i]);
      decoded_.insert(reached.functions[i]);
    }
    program->parameter_bytes = program->functions[0].parameter_bytes;
    return program;
  }

  void place_shared(const Reach& reached, Program& program, Environment& environment) {
    int64_t end = 0, dynamic_align = 16;
    std::vector<const syntax::Variable*> dynamic;
    const auto add = [&](const syntax::Variable& variable) {
      if (variable.is_extern || variable.unbounded) {
        dynamic.push_back(&variable);
        dynamic_align = std::max(dynamic_align, variable.align);
        return;
      }
      const int64_t offset = align_up(end, std::max<int64_t>(variable.align, 1));
      if (variable.size > kMaxSharedBytes || offset + variable.size > kMaxSharedBytes) {
        fail("more than 228 KiB of shared memory", variable.line, program.name);
      }
      environment.place_of[&variable] = static_cast<uint64_t>(offset);
      end = offset + variable.size;
    };
    for (const syntax::Variable& variable : syntax().variables) {
      if (variable.space == Space::kShared && reached.names.count(variable.name)) add(variable);
    }
    for (uint32_t f : reached.functions) {
      for_each_variable(syntax().functions[f], [&](const syntax::Variable& variable) {
        if (variable.space == Space::kShared) add(variable);
      });
    }
    program.static_shared_bytes = end;
    program.dynamic_shared_offset = align_up(end, dynamic_align);
    for (const syntax::Variable* variable : dynamic) {
      environment.place_of[variable] = static_cast<uint64_t>(program.dynamic_shared_offset);
    }
    for (const syntax::Variable& variable : syntax().variables) {
      const auto found = environment.place_of.find(&variable);
      if (found != environment.place_of.end() && variable.space == Space::kShared) {
        environment.shared.insert_or_assign(variable.name, static_cast<int64_t>(found->second));
      }
    }
  }

  // Functions that no kernel reaches are decoded too, so that what is unknown in them is said at once.
  void check_unreached() {
    for (uint32_t f = 0; f < syntax().functions.size(); ++f) {
      if (!syntax().functions[f].has_body || decoded_.count(f)) continue;
      link(f);
    }
  }

  // ---- one function ----

  void assemble(Environment& environment, const syntax::Function& source, Function& out) {
    FunctionDecoder decoder(environment, source, out);
    decoder.run();
    std::vector<Pending>& pending = decoder.pending();
    const std::vector<BasicBlock> blocks = find_blocks(pending);
    const std::vector<uint32_t> order = execution_order(blocks);
    const RegisterSlots slots = allocate_registers(pending, decoder.registers(), blocks, order);
    if (slots.frame_bytes > kMaxFrameBytes)
      fail("more registers live than fit in 16 MiB a warp", source.line, source.name);
    out.frame_bytes = slots.frame_bytes;
    out.areas = slots.areas;
    for (Pending& entry : pending) {
      Extra* extra = const_cast<Extra*>(entry.instruction.extra);
      for_each_register(entry.instruction, extra,
                        [&](Ref& ref, bool) { ref = slots.slot[static_cast<size_t>(ref) >> 2]; });
    }
    std::vector<uint32_t> segment_of(blocks.size(), kNoSegment);
    for (uint32_t i = 0; i < order.size(); ++i) segment_of[order[i]] = i;
    const auto segment = [&](uint32_t block) { return block == kNoSegment ? kNoSegment : segment_of[block]; };
    for (uint32_t b : order) {
      const BasicBlock& block = blocks[b];
      Segment made;
      made.count = environment.program->segment_count++;
      made.begin = static_cast<uint32_t>(out.instructions.size());
      for (size_t i = block.begin; i < block.end - block.ends_in_control; ++i) {
        out.instructions.push_back(pending[i].instruction);
      }
      made.end = static_cast<uint32_t>(out.instructions.size());
      made.next = segment(block.next);
      if (block.ends_in_control) {
        out.controls.push_back(pending[block.end - 1].instruction);
        made.control = &out.controls.back();
        if (!block.targets.empty()) made.target = segment(block.targets[0]);
        for (uint32_t target : block.targets) made.targets.push_back(segment(target));
      }
      out.segments.push_back(std::move(made));
    }
  }

  DecodedModule out_;
  std::unordered_map<std::string_view, uint32_t> functions_;
  std::unordered_map<std::string_view, uint64_t> memory_;
  std::unordered_map<const syntax::Variable*, uint64_t> place_of_;  // of those that functions declare
  int64_t placed_bytes_ = 0;
  std::vector<std::pair<const syntax::Variable*, uint8_t*>> initialised_;
  std::set<uint32_t> taken_;  // functions whose address an initial value takes
  std::set<uint32_t> decoded_;
};

}  // namespace

DecodedModule decode(syntax::Module module) { return ModuleDecoder(std::move(module)).run(); }

}  // namespace flopcuda::ptxvm
