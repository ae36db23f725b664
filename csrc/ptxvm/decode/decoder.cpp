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

class ModuleDecoder {
 public:
  ModuleDecoder(syntax::Module module, const PlacedVariables& placed) : placed_(placed) {
    out_.syntax = std::move(module);
  }

  DecodedModule run() {
    index_functions();
    index_variables();
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

  // A definition takes the place of its declarations.
  void index_functions() {
    for (uint32_t f = 0; f < syntax().functions.size(); ++f) {
      const syntax::Function& function = syntax().functions[f];
      const auto [entry, added] = functions_.emplace(function.name, f);
      if (added) continue;
      const syntax::Function& earlier = syntax().functions[entry->second];
      if (!same_interface(earlier, function)) {
        fail("function is declared with other parameters in line " + std::to_string(earlier.line), function.line,
             function.name);
      }
      if (!function.has_body) continue;
      if (earlier.has_body) fail("function is defined twice", function.line, function.name);
      entry->second = f;
    }
  }

  static bool same_interface(const syntax::Function& a, const syntax::Function& b) {
    const auto same = [](const syntax::Variable& x, const syntax::Variable& y) {
      return x.type == y.type && x.size == y.size && x.align == y.align;
    };
    const auto all = [&](const std::vector<syntax::Variable>& x, const std::vector<syntax::Variable>& y) {
      return std::equal(x.begin(), x.end(), y.begin(), y.end(), same);
    };
    return a.is_entry == b.is_entry && all(a.parameters, b.parameters) && all(a.returns, b.returns);
  }

  // ---- .global and .const ----

  void index_variables() {
    for (const syntax::Variable& variable : syntax().variables) {
      const std::string name(variable.name);
      if (functions_.count(variable.name)) fail("'" + name + "' is a function too", variable.line);
      const auto [entry, added] = variables_.emplace(variable.name, &variable);
      if (added) continue;
      const syntax::Variable& earlier = *entry->second;
      if (earlier.space != variable.space) {
        fail("'" + name + "' is in another state space in line " + std::to_string(earlier.line), variable.line);
      }
      if (variable.is_extern) continue;
      if (!earlier.is_extern) fail("'" + name + "' is defined twice", variable.line);
      entry->second = &variable;
    }
  }

  template <class Visit>
  void for_each_variable(Visit visit) const {
    for (const syntax::Variable& variable : syntax().variables) visit(variable);
    for (const syntax::Function& function : syntax().functions) {
      for (const syntax::Statement& statement : function.body) {
        if (const auto* variable = std::get_if<syntax::Variable>(&statement)) visit(*variable);
      }
    }
  }

  void place_variables() {
    int64_t total = 0;
    for_each_variable([&](const syntax::Variable& variable) {
      if (variable.space != Space::kGlobal && variable.space != Space::kConst) return;
      if (variable.is_declaration) return check_defined(variable);
      total += variable.size;
      if (total > kMaxModuleBytes) fail("more than 1 GiB of variables", variable.line);
      place(variable);
    });
  }

  void check_defined(const syntax::Variable& variable) const {
    if (!variables_.at(variable.name)->is_declaration) return;
    fail("external variable '" + std::string(variable.name) + "' is not defined", variable.line);
  }

  void place(const syntax::Variable& variable) {
    const auto placed = placed_.find(std::string(variable.name));
    const uint64_t address = placed != placed_.end() ? placed->second : new_place(variable);
    places_.emplace(&variable, address);
    out_.variables.push_back({std::string(variable.name), variable.space, address, variable.size});
  }

  uint64_t new_place(const syntax::Variable& variable) {
    const size_t align = static_cast<size_t>(std::max<int64_t>(variable.align, 256));
    // Memory fresh from the system is not touched until a kernel does.
    auto* memory = static_cast<uint8_t*>(std::calloc(static_cast<size_t>(variable.size) + align, 1));
    if (!memory) fail("no memory for variable '" + std::string(variable.name) + "'", variable.line);
    out_.memory.emplace_back(memory, &std::free);
    uint8_t* const place = memory + align - reinterpret_cast<uint64_t>(memory) % align;
    std::copy(variable.initial.begin(), variable.initial.end(), place);
    return reinterpret_cast<uint64_t>(place);
  }

  void relocate() {
    for_each_variable([&](const syntax::Variable& variable) {
      if (placed_.count(std::string(variable.name))) return;
      for (const syntax::Relocation& entry : variable.relocations) {
        const uint64_t value = (address_of(entry) + entry.addend) >> entry.shift;
        auto* place = reinterpret_cast<uint8_t*>(places_.at(&variable));
        std::memcpy(place + entry.position, &value, static_cast<size_t>(entry.size));
      }
    });
  }

  uint64_t address_of(const syntax::Relocation& entry) {
    if (const auto variable = variables_.find(entry.symbol); variable != variables_.end()) {
      if (const auto place = places_.find(variable->second); place != places_.end()) return place->second;
      fail("initial value names '" + std::string(entry.symbol) + "', which is not .global or .const", entry.line);
    }
    if (const auto found = functions_.find(entry.symbol); found != functions_.end()) {
      taken_.insert(found->second);
      return kFunctionWindow + 16 * uint64_t{found->second};
    }
    fail("initial value names '" + std::string(entry.symbol) + "', which is not defined", entry.line);
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
        const auto* targets = std::get_if<syntax::Targets>(&statement);
        if (targets && targets->of_calls) names.insert(targets->names.begin(), targets->names.end());
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
    environment.variables = variables_;
    environment.places = places_;
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
      if (variable.space != Space::kShared) return;
      if (variable.is_extern || variable.unbounded) {
        dynamic.push_back(&variable);
        dynamic_align = std::max(dynamic_align, variable.align);
        return;
      }
      const int64_t offset = align_up(end, std::max<int64_t>(variable.align, 1));
      if (variable.size > kMaxSharedBytes || offset + variable.size > kMaxSharedBytes) {
        fail("more than 228 KiB of shared memory", variable.line, program.name);
      }
      environment.places.emplace(&variable, static_cast<uint64_t>(offset));
      end = offset + variable.size;
    };
    for (const syntax::Variable& variable : syntax().variables) {
      if (reached.names.count(variable.name)) add(variable);
    }
    for (uint32_t f : reached.functions) {
      for (const syntax::Statement& statement : syntax().functions[f].body) {
        if (const auto* variable = std::get_if<syntax::Variable>(&statement)) add(*variable);
      }
    }
    program.static_shared_bytes = end;
    program.dynamic_shared_offset = align_up(end, dynamic_align);
    for (const syntax::Variable* variable : dynamic) {
      environment.places.emplace(variable, static_cast<uint64_t>(program.dynamic_shared_offset));
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

  const PlacedVariables& placed_;
  DecodedModule out_;
  std::unordered_map<std::string_view, uint32_t> functions_;
  std::unordered_map<std::string_view, const syntax::Variable*> variables_;  // of the module
  std::unordered_map<const syntax::Variable*, uint64_t> places_;             // .global and .const
  std::set<uint32_t> taken_;  // functions whose address an initial value takes
  std::set<uint32_t> decoded_;
};

}  // namespace

DecodedModule decode(syntax::Module module, const PlacedVariables& placed) {
  return ModuleDecoder(std::move(module), placed).run();
}

}  // namespace flopcuda::ptxvm
