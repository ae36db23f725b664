// The syntax tree of a PTX module: what the text says, before anything is known of what it means.
//
// All names point into the module's own copy of the text.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "types.h"

namespace flopcuda::ptxvm::syntax {

struct Operand {
  enum class Kind : uint8_t {
    kName,     // a register, variable, label or function, with an optional constant offset
    kInteger,  // two's complement in `bits`
    kFloat32,  // IEEE bits
    kFloat64,
    kAddress,  // [name + offset] or [integer]: `items` has the one base
    kVector,   // {a, b}
    kList,     // (a, b) of a call
    kPair,     // p|q
  };
  Kind kind = Kind::kName;
  bool negated = false;  // !%p
  std::string_view name;
  uint64_t bits = 0;
  int64_t offset = 0;
  std::vector<Operand> items;
};

struct Instruction {
  int line = 0;
  std::string_view guard;  // the predicate of @%p, or empty
  bool guard_negated = false;
  std::string_view opcode;
  std::vector<std::string_view> modifiers;
  std::vector<Operand> operands;
};

// A variable's initial value: bytes, and addresses to be filled in when the module is placed in memory.
struct Relocation {
  int line = 0;
  int64_t position = 0;
  int size = 0;   // bytes to fill
  int shift = 0;  // of the address, by whole bytes, before it is cut to that size
  std::string_view symbol;
  uint64_t addend = 0;
};

struct Variable {
  int line = 0;
  Space space = Space::kGlobal;
  Type type = Type::kNone;
  int64_t align = 0;
  int64_t size = 0;  // bytes; 0 for an extern array without bounds
  bool is_extern = false;
  bool is_declaration = false;  // .extern of something defined elsewhere
  bool unbounded = false;
  std::string_view name;
  std::vector<uint8_t> initial;
  std::vector<Relocation> relocations;
};

struct Registers {
  int line = 0;
  Type type = Type::kNone;
  std::string_view name;
  int64_t count = -1;  // of %r<count>; -1 for a single register
};

struct Label {
  int line = 0;
  std::string_view name;
};

struct Location {
  int file = 0;
  int line = 0;
};

struct ScopeBegin {};
struct ScopeEnd {};

// name: .branchtargets a, b; or .calltargets f, g;
struct Targets {
  int line = 0;
  std::string_view name;
  bool of_calls = false;
  std::vector<std::string_view> names;
};

struct Prototype {
  int line = 0;
  std::string_view name;
  std::vector<Variable> returns;
  std::vector<Variable> parameters;
};

using Statement =
    std::variant<Instruction, Label, Location, ScopeBegin, ScopeEnd, Variable, Registers, Targets, Prototype>;

struct Function {
  int line = 0;
  bool is_entry = false;
  bool has_body = false;
  std::string_view name;
  std::vector<Variable> returns;
  std::vector<Variable> parameters;
  std::vector<Statement> body;
  int64_t max_threads = 0;     // .maxntid or .reqntid: product of the extents, 0 when not given
  bool exact_threads = false;  // .reqntid
};

struct Module {
  std::shared_ptr<const std::string> text;
  std::vector<std::string_view> lines;
  std::string version;
  std::string target;
  std::vector<std::string> files;  // by .file index
  std::vector<Variable> variables;
  std::vector<Function> functions;

  // One line of the text without its surrounding blanks.
  std::string line_text(int line) const;
};

}  // namespace flopcuda::ptxvm::syntax
