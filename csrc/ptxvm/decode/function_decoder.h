// Decodes the body of one function: resolves names, checks operands, and hands every instruction to the rule of its
// opcode (rules.h). The result is a list of instructions over virtual registers that flow.h cuts into segments.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "decode/modifiers.h"
#include "decode/program.h"
#include "parse/syntax.h"

namespace flopcuda::ptxvm {

// What a function may refer to outside itself.
struct Environment {
  const syntax::Module* module = nullptr;
  Program* program = nullptr;
  std::unordered_map<std::string_view, const syntax::Variable*> variables;  // of the module
  // Host addresses of .global and .const variables, offsets of .shared ones; those of functions included.
  std::unordered_map<const syntax::Variable*, uint64_t> places;
  std::unordered_map<std::string_view, uint32_t> module_function;  // index in the module
  std::map<std::pair<int, uint64_t>, Ref>* constants = nullptr;    // rows made so far, by size and bits
};

// One decoded instruction before registers have their slots.
struct Pending {
  Instruction instruction;
  bool is_control = false;
  std::vector<size_t> targets;  // statement positions in `pending` that control may jump to
};

struct VirtualRegister {
  Type type;
  int size;  // 0: a predicate
};

class FunctionDecoder {
 public:
  FunctionDecoder(Environment& environment, const syntax::Function& source, Function& out);

  // Throws PtxError on anything unknown.
  void run();

  std::vector<Pending>& pending() { return pending_; }
  const std::vector<VirtualRegister>& registers() const { return registers_; }

  // ---- for the rules ----

  [[noreturn]] void fail(const std::string& message) const;
  [[noreturn]] void fail(const std::string& message, int line) const;
  void require(bool condition, const char* message) const {
    if (!condition) fail(message);
  }

  const syntax::Instruction& source() const { return *instruction_; }
  const syntax::Operand& operand(size_t index) const;
  size_t operand_count() const { return instruction_->operands.size(); }
  void expect_operands(size_t count) const { expect_operands(count, count); }
  void expect_operands(size_t low, size_t high) const;
  // Refuses every other flag, and words that the rule has not taken.
  void only_flags(const Modifiers& modifiers, uint64_t allowed) const;
  // Just so many types, at most so many state spaces, and none but these flags.
  void expect_modifiers(const Modifiers& modifiers, size_t types, uint64_t flags, size_t spaces = 0) const;
  // Refuses suffixes of other kinds, flags and words apart.
  void only_suffixes(uint8_t kinds) const;

  bool is_sink(const syntax::Operand& operand) const;
  bool is_register(const syntax::Operand& operand) const;
  // The reference of a source operand of this type: a register of that width or an immediate.
  Ref use(const syntax::Operand& operand, Type type);
  // A source that may lie in a wider register (st, cvt); `size` gets the register's bytes.
  Ref use_at_least(const syntax::Operand& operand, Type type, int& size);
  // The same for mov and cvt, which alone read special registers.
  Ref use_or_special(const syntax::Operand& operand, Type type);
  Ref use_or_special_at_least(const syntax::Operand& operand, Type type, int& size);
  Ref use_predicate(const syntax::Operand& operand, bool& negated);
  Ref define(const syntax::Operand& operand, Type type);
  Ref define_at_least(const syntax::Operand& operand, Type type, int& size);
  Ref define_predicate(const syntax::Operand& operand);
  // Results that the text may discard with an underscore: kNoRef then.
  Ref define_or_discard(const syntax::Operand& operand, Type type) {
    return is_sink(operand) ? kNoRef : define(operand, type);
  }
  Ref define_predicate_or_discard(const syntax::Operand& operand) {
    return is_sink(operand) ? kNoRef : define_predicate(operand);
  }
  Type register_type(const syntax::Operand& operand);
  Ref carry();  // the condition-code register
  Ref constant(int size, uint64_t bits);
  Ref special(Special which) const;
  int64_t immediate(const syntax::Operand& operand) const;

  struct Address {
    Ref base = kNoRef;
    bool wide = true;              // 64-bit base
    bool frame_relative = false;   // offset counts from the thread's local frame
    bool entry_parameter = false;  // a kernel parameter at a constant offset
    bool absolute = false;         // a constant
    int64_t offset = 0;
    Space space = Space::kGeneric;  // of the variable named, kGeneric for a register or a constant
  };
  // What brackets hold, as an address in this space: kGeneric for what generic addressing reaches.
  Address address_in(const syntax::Operand& operand, Space space);
  // The value of a variable's or function's name: mov.u64 %rd, name.
  struct SymbolValue {
    bool frame_relative = false;
    bool is_function = false;
    bool has_address = true;  // not an argument of a call
    uint64_t value = 0;
    Space space = Space::kGeneric;
  };
  bool symbol_value(const syntax::Operand& operand, SymbolValue& out) const;

  Extra* new_extra();
  // Fills in the guard, the line and the counters' index, and appends.
  void emit(const Instruction& decoded, HandlerKey key, Space space = Space::kGeneric, Type fma = Type::kNone,
            int64_t macs = 0);
  void emit_control(const Instruction& instruction, Op op, std::vector<size_t> targets = {});

  size_t label_position(std::string_view name) const;
  const syntax::Targets* targets_named(std::string_view name) const;  // null if there are none
  const syntax::Prototype* prototype_named(std::string_view name) const;
  const ParameterSlot* local_slot(std::string_view name) const;
  Environment& environment() { return environment_; }
  Function& function() { return out_; }
  bool in_entry() const { return source_.is_entry; }

 private:
  struct Symbol {
    enum class Kind : uint8_t { kRegister, kMemory, kFrame, kEntryParameter, kShared } kind;
    Space space = Space::kRegister;
    Type type = Type::kNone;
    bool has_address = true;
    int64_t count = -1;
    int64_t value = 0;
    ParameterSlot slot;
  };
  struct Scope {
    size_t parent = 0;
    std::unordered_map<std::string_view, int> defined_at;  // every name of the scope, by line
    std::unordered_map<std::string_view, Symbol> symbols;
    std::unordered_map<std::string_view, Symbol> families;  // %r<10>: by prefix
    std::unordered_map<std::string_view, size_t> labels;    // statement index
    std::unordered_map<std::string_view, const syntax::Targets*> targets;
    std::unordered_map<std::string_view, const syntax::Prototype*> prototypes;
  };

  void lay_out_parameters();
  void collect_labels();
  void statement(const syntax::Statement& statement);
  void declare(const syntax::Variable& variable);
  void declare(const syntax::Registers& registers);
  void claim(std::string_view name, int line);
  uint64_t place_of(const syntax::Variable& variable) const;
  void instruction(const syntax::Instruction& instruction);
  void resolve_targets();
  const Symbol* find(std::string_view name) const;
  const Symbol* find_register(std::string_view name) const;
  int32_t virtual_register(std::string_view name);
  Ref predicate_register(const syntax::Operand& operand);
  Ref immediate_bits(const syntax::Operand& operand, Type type);
  std::optional<Special> find_special(const syntax::Operand& operand) const;
  void check_register_type(const syntax::Operand& operand, Type held, Type wanted) const;
  void check_register_size(const syntax::Operand& operand, int size, Type wanted) const;
  [[noreturn]] void fail_modifier(std::string_view suffix) const;
  Address address(const syntax::Operand& operand);
  int64_t reserve_frame(const syntax::Variable& variable);
  template <class Map>
  auto lookup(const Map Scope::* map, std::string_view name) const;

  Environment& environment_;
  const syntax::Function& source_;
  Function& out_;
  std::vector<Scope> scopes_;
  std::vector<size_t> scope_of_begin_;  // scope ids in the order their ScopeBegin statements appear
  size_t next_scope_ = 1;
  size_t scope_ = 0;
  std::vector<size_t> position_of_statement_;
  const syntax::Instruction* instruction_ = nullptr;
  syntax::Location location_;
  std::vector<Pending> pending_;
  std::vector<VirtualRegister> registers_;
  // Keyed by scope too: an inner scope may redeclare a name.
  std::map<std::pair<const Symbol*, std::string_view>, int32_t> register_ids_;
  Ref carry_ = kNoRef;
};

// Where a decoded memory instruction keeps its address: a, offset and the AddressFlags in u[3].
void set_address(Instruction& instruction, const FunctionDecoder::Address& address);

// Offsets of parameters laid one after the other; returns the bytes they take. What a caller and its callee agree on.
int64_t lay_out_parameters(const std::vector<syntax::Variable>& variables, int64_t start,
                           std::vector<ParameterSlot>& slots);

}  // namespace flopcuda::ptxvm
