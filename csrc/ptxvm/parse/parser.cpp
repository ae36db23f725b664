// PTX text -> syntax tree, by recursive descent.
#include "parse/parser.h"

#include <algorithm>
#include <limits>
#include <map>

#include "error.h"
#include "parse/lexer.h"

namespace flopcuda::ptxvm {

namespace syntax {

std::string Module::line_text(int line) const {
  if (line < 1 || line > static_cast<int>(lines.size())) return "";
  std::string_view text = lines[line - 1];
  const size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, std::min<size_t>(text.find_last_not_of(" \t\r") + 1 - begin, 200)));
}

}  // namespace syntax

namespace {

using syntax::Operand;
using Kind = Token::Kind;

constexpr int64_t kMaxVariableBytes = int64_t{1} << 30;
constexpr int64_t kMaxRegisters = int64_t{1} << 20;
constexpr int kMaxNesting = 64;

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

Space space_named(std::string_view name) {
  if (name == "reg") return Space::kRegister;
  if (name == "global") return Space::kGlobal;
  if (name == "shared") return Space::kShared;
  if (name == "local") return Space::kLocal;
  if (name == "const") return Space::kConst;
  if (name == "param") return Space::kParam;
  return Space::kGeneric;
}

class Parser {
 public:
  explicit Parser(std::string text) {
    module_.text = std::make_shared<const std::string>(std::move(text));
    module_.lines = split_lines(*module_.text);
  }

  syntax::Module run() {
    try {
      tokens_ = tokenize(*module_.text);
    } catch (const PtxError& error) {
      throw_located(error);
    }
    header();
    while (peek().kind != Kind::kEnd) directive();
    return std::move(module_);
  }

 private:
  // ---- tokens ----

  const Token& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  const Token& take() {
    const Token& token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool accept(char symbol) {
    if (!peek().is(symbol)) return false;
    take();
    return true;
  }
  bool accept_suffix(std::string_view name) {
    if (peek().kind != Kind::kSuffix || peek().text != name) return false;
    take();
    return true;
  }
  void expect(char symbol) {
    if (!accept(symbol)) fail(std::string("expected '") + symbol + "', found '" + std::string(peek().text) + "'");
  }
  std::string_view word() {
    if (peek().kind != Kind::kWord) fail("expected a name, found '" + std::string(peek().text) + "'");
    return take().text;
  }

  [[noreturn]] void fail(const std::string& message) const { fail(message, peek().line); }
  [[noreturn]] void fail(const std::string& message, int line) const {
    throw PtxError(message, function_, line, module_.line_text(line));
  }
  [[noreturn]] void throw_located(const PtxError& error) const {
    std::string message = error.what();
    const size_t colon = message.find(": ");
    if (error.line() > 0 && colon != std::string::npos) message = message.substr(colon + 2);
    throw PtxError(message, "", error.line(), module_.line_text(error.line()));
  }

  int64_t integer() {
    const bool negative = accept('-');
    if (peek().kind != Kind::kInteger) fail("expected an integer, found '" + std::string(peek().text) + "'");
    const uint64_t bits = take().bits;
    return static_cast<int64_t>(negative ? 0 - bits : bits);
  }
  int64_t integer_within(int64_t low, int64_t high, const char* what) {
    const int line = peek().line;
    const int64_t value = integer();
    if (value < low || value > high) fail(std::string(what) + " out of range", line);
    return value;
  }

  // ---- module level ----

  void header() {
    if (!accept_suffix("version")) fail("a PTX module begins with .version");
    version();
    if (!accept_suffix("target")) fail("expected .target after .version");
    module_.target = std::string(word());
    while (accept(',')) word();
    if (accept_suffix("address_size") && integer() != 64) fail("only .address_size 64 is supported");
  }

  void version() {
    const Token& number = take();
    if (number.kind != Kind::kFloat64) fail("expected a version like 8.0");
    module_.version = std::string(number.text);
    const int major = std::atoi(module_.version.c_str());
    if (major < 6 || major > 9) fail("PTX ISA version " + module_.version + " is not supported (6.0 to 9.x are)");
  }

  void directive() {
    if (accept(';')) return;
    if (peek().kind != Kind::kSuffix) fail("expected a directive, found '" + std::string(peek().text) + "'");
    if (accept_suffix("file")) return file();
    if (accept_suffix("section")) return section();
    if (accept_suffix("pragma")) return pragma();
    if (accept_suffix("loc")) return static_cast<void>(location());
    if (peek().text == "alias") fail("directive .alias is not supported");
    linked();
  }

  void file() {
    const int64_t index = integer_within(0, 1 << 20, ".file index");
    if (peek().kind != Kind::kString) fail("expected a file name");
    if (static_cast<int64_t>(module_.files.size()) <= index) module_.files.resize(index + 1);
    module_.files[index] = std::string(take().text);
    while (accept(',')) integer();
  }

  // DWARF: of no consequence for execution.
  void section() {
    take();
    const int line = peek().line;
    expect('{');
    while (!accept('}')) {
      if (peek().kind == Kind::kEnd) fail("section without an end", line);
      take();
    }
  }

  void pragma() {
    do {
      if (peek().kind != Kind::kString) fail("expected a string after .pragma");
      take();
    } while (accept(','));
    expect(';');
  }

  void linked() {
    bool is_extern = false;
    while (peek().kind == Kind::kSuffix) {
      if (accept_suffix("extern")) {
        is_extern = true;
      } else if (!accept_suffix("visible") && !accept_suffix("weak") && !accept_suffix("common")) {
        break;
      }
    }
    const Token& kind = peek();
    if (accept_suffix("entry")) return function(true, is_extern);
    if (accept_suffix("func")) return function(false, is_extern);
    const Space space = kind.kind == Kind::kSuffix ? space_named(kind.text) : Space::kGeneric;
    if (space == Space::kGlobal || space == Space::kShared || space == Space::kConst) {
      take();
      return variables(space, is_extern, [this](syntax::Variable v) { module_.variables.push_back(std::move(v)); });
    }
    fail("unknown directive '." + std::string(kind.text) + "'");
  }

  // ---- declarations ----

  template <class Sink>
  void variables(Space space, bool is_extern, Sink sink) {
    syntax::Variable common = variable_type(space);
    common.is_extern = is_extern;
    do {
      syntax::Variable variable = common;
      declarator(variable);
      sink(std::move(variable));
    } while (accept(','));
    expect(';');
  }

  // .align, .attribute, .ptr and the type, in front of the name.
  syntax::Variable variable_type(Space space) {
    syntax::Variable variable;
    variable.line = peek().line;
    variable.space = space;
    int64_t vector = 1;
    while (peek().kind == Kind::kSuffix) {
      const std::string_view name = peek().text;
      if (accept_suffix("align")) {
        variable.align = alignment();
      } else if (accept_suffix("attribute")) {
        attribute();
      } else if (accept_suffix("v2")) {
        vector = 2;
      } else if (accept_suffix("v4")) {
        vector = 4;
      } else if (accept_suffix("ptr")) {
        if (peek().kind == Kind::kSuffix && space_named(peek().text) != Space::kGeneric) take();
      } else if (type_named(name) != Type::kNone && variable.type == Type::kNone) {
        take();
        variable.type = type_named(name);
      } else {
        fail("unknown attribute '." + std::string(name) + "' of a variable");
      }
    }
    if (variable.type == Type::kNone) fail("variable without a type");
    if (variable.type == Type::kPred) fail("a predicate cannot be a variable in memory");
    variable.size = size_of(variable.type) * vector;
    if (variable.align == 0) variable.align = variable.size;
    return variable;
  }

  int64_t alignment() {
    const int64_t value = integer_within(1, 1 << 16, "alignment");
    if (value & (value - 1)) fail("alignment is not a power of two");
    return value;
  }

  void attribute() {
    expect('(');
    while (!accept(')')) {
      if (peek().kind == Kind::kEnd || peek().is(';')) fail("attribute without an end");
      take();
    }
  }

  void declarator(syntax::Variable& variable) {
    if (peek().kind == Kind::kWord) variable.name = take().text;
    const int64_t element = variable.size;
    while (accept('[')) {
      if (accept(']')) {
        variable.unbounded = true;
        continue;
      }
      const int64_t extent = integer_within(0, kMaxVariableBytes, "array extent");
      if (extent != 0 && variable.size > kMaxVariableBytes / extent) fail("variable larger than 1 GiB");
      variable.size *= extent;
      expect(']');
    }
    if (accept('=')) initializer(variable, element);
    if (variable.unbounded && variable.initial.empty()) variable.size = 0;
    if (variable.unbounded && !variable.initial.empty()) {
      variable.size = static_cast<int64_t>(variable.initial.size());
    }
    variable.is_declaration = variable.is_extern && variable.space != Space::kShared;
    if (static_cast<int64_t>(variable.initial.size()) > variable.size) fail("more initial values than elements");
  }

  void initializer(syntax::Variable& variable, int64_t element) {
    if (variable.space != Space::kGlobal && variable.space != Space::kConst)
      fail("only .global and .const have initial values");
    initial_values(variable, static_cast<int>(element), 0);
  }

  void initial_values(syntax::Variable& variable, int element, int depth) {
    if (depth > kMaxNesting) fail("initial value nested too deeply");
    if (!accept('{')) return initial_value(variable, element);
    if (accept('}')) return;
    do {
      initial_values(variable, element, depth + 1);
    } while (accept(','));
    expect('}');
  }

  void initial_value(syntax::Variable& variable, int element) {
    const size_t position = variable.initial.size();
    const bool complement = accept('~');
    const bool negative = accept('-');
    uint64_t bits = 0;
    if (peek().kind == Kind::kWord) {
      relocation(variable, static_cast<int64_t>(position), element);
    } else if (peek().kind == Kind::kInteger) {
      bits = take().bits;
      if (negative) bits = 0 - bits;
      if (complement) bits = ~bits;
    } else if (peek().kind == Kind::kFloat32 || peek().kind == Kind::kFloat64) {
      bits = float_value(variable.type, negative);
    } else {
      fail("expected an initial value, found '" + std::string(peek().text) + "'");
    }
    for (int i = 0; i < element; ++i) variable.initial.push_back(static_cast<uint8_t>(i < 8 ? bits >> (8 * i) : 0));
  }

  uint64_t float_value(Type type, bool negative) {
    const Token& token = take();
    double value;
    if (token.kind == Kind::kFloat32) {
      const uint32_t low = static_cast<uint32_t>(token.bits);
      if (size_of(type) == 4) return negative ? low ^ 0x80000000u : low;
      float single;
      std::copy_n(reinterpret_cast<const char*>(&low), 4, reinterpret_cast<char*>(&single));
      value = single;
    } else {
      std::copy_n(reinterpret_cast<const char*>(&token.bits), 8, reinterpret_cast<char*>(&value));
    }
    if (negative) value = -value;
    uint64_t bits = 0;
    if (size_of(type) == 4) {
      const float single = static_cast<float>(value);
      std::copy_n(reinterpret_cast<const char*>(&single), 4, reinterpret_cast<char*>(&bits));
    } else {
      std::copy_n(reinterpret_cast<const char*>(&value), 8, reinterpret_cast<char*>(&bits));
    }
    return bits;
  }

  void relocation(syntax::Variable& variable, int64_t position, int size) {
    syntax::Relocation entry{position, size, "", 0, false};
    if (peek().text == "generic" && peek(1).is('(')) {
      take();
      take();
      entry.generic = true;
    }
    entry.symbol = word();
    const auto addend = [&] {
      if (accept('+') || peek().is('-')) entry.addend += static_cast<uint64_t>(integer());
    };
    addend();
    if (entry.generic) expect(')');
    addend();
    if (size != 8) fail("an address needs 8 bytes");
    variable.relocations.push_back(entry);
  }

  // ---- functions ----

  void function(bool is_entry, bool is_extern) {
    syntax::Function function;
    function.is_entry = is_entry;
    while (accept_suffix("attribute")) attribute();
    if (!is_entry && peek().is('(')) function.returns = parameters();
    function.line = peek().line;
    function.name = word();
    function_ = std::string(function.name);
    if (peek().is('(')) function.parameters = parameters();
    performance_directives(function);
    if (peek().is('{')) {
      if (is_extern) fail("an .extern function has a body");
      function.has_body = true;
      body(function);
    } else {
      expect(';');
    }
    function_.clear();
    module_.functions.push_back(std::move(function));
  }

  std::vector<syntax::Variable> parameters() {
    std::vector<syntax::Variable> list;
    expect('(');
    if (accept(')')) return list;
    do {
      Space space = Space::kParam;
      if (accept_suffix("reg")) {
        space = Space::kRegister;
      } else if (!accept_suffix("param")) {
        fail("expected .param or .reg, found '" + std::string(peek().text) + "'");
      }
      syntax::Variable variable = variable_type(space);
      declarator(variable);
      list.push_back(std::move(variable));
    } while (accept(','));
    expect(')');
    return list;
  }

  void performance_directives(syntax::Function& function) {
    while (peek().kind == Kind::kSuffix) {
      if (accept_suffix("maxntid") || accept_suffix("reqntid")) {
        function.max_threads = 1;
        int extents = 0;
        do {
          if (++extents > 3) fail("more than three thread extents");
          function.max_threads *= integer_within(1, 1024, "thread extent");
        } while (accept(','));
      } else if (accept_suffix("minnctapersm") || accept_suffix("maxnreg") || accept_suffix("maxnctapersm") ||
                 accept_suffix("maxclusterrank")) {
        integer();
      } else if (accept_suffix("pragma")) {
        pragma();
      } else if (!accept_suffix("noreturn")) {
        fail("directive '." + std::string(peek().text) + "' is not supported");
      }
    }
  }

  void body(syntax::Function& function) {
    int depth = 0;
    do {
      if (peek().kind == Kind::kEnd) fail("function without an end", function.line);
      if (accept('{')) {
        if (++depth > kMaxNesting) fail("scopes nested too deeply");
        if (depth > 1) function.body.push_back(syntax::ScopeBegin{});
      } else if (accept('}')) {
        if (--depth > 0) function.body.push_back(syntax::ScopeEnd{});
      } else {
        statement(function.body);
      }
    } while (depth > 0);
  }

  void statement(std::vector<syntax::Statement>& out) {
    if (accept(';')) return;
    if (peek().kind == Kind::kSuffix) return body_directive(out);
    if (peek().kind == Kind::kWord && peek(1).is(':')) return label(out);
    out.push_back(instruction());
  }

  void label(std::vector<syntax::Statement>& out) {
    const int line = peek().line;
    const std::string_view name = word();
    expect(':');
    if (accept_suffix("branchtargets") || accept_suffix("calltargets")) {
      syntax::Targets targets{line, name, {}};
      do {
        targets.labels.push_back(word());
      } while (accept(','));
      expect(';');
      out.push_back(std::move(targets));
    } else if (accept_suffix("callprototype")) {
      out.push_back(prototype(line, name));
    } else {
      out.push_back(syntax::Label{line, name});
    }
  }

  syntax::Prototype prototype(int line, std::string_view name) {
    syntax::Prototype result{line, name, {}, {}};
    if (peek().is('(')) result.returns = parameters();
    word();
    if (peek().is('(')) result.parameters = parameters();
    accept_suffix("noreturn");
    expect(';');
    return result;
  }

  void body_directive(std::vector<syntax::Statement>& out) {
    if (accept_suffix("loc")) {
      out.push_back(location());
      return;
    }
    if (accept_suffix("pragma")) return pragma();
    if (accept_suffix("reg")) return registers(out);
    bool is_extern = accept_suffix("extern");
    const Space space = space_named(peek().text);
    if (space == Space::kGeneric) fail("unknown directive '." + std::string(peek().text) + "'");
    take();
    variables(space, is_extern, [&out](syntax::Variable v) { out.push_back(std::move(v)); });
  }

  syntax::Location location() {
    syntax::Location result;
    result.file = static_cast<int>(integer_within(0, 1 << 20, "file index"));
    result.line = static_cast<int>(integer_within(0, std::numeric_limits<int>::max(), "line number"));
    integer();
    // function_name LABEL [+ n], inlined_at file line column: where the code was inlined.
    while (accept(',')) {
      word();
      if (peek().kind == Kind::kWord) {
        word();
        if (accept('+')) integer();
      } else {
        for (int i = 0; i < 3; ++i) integer();
      }
    }
    return result;
  }

  void registers(std::vector<syntax::Statement>& out) {
    int64_t vector = 1;
    if (accept_suffix("v2")) vector = 2;
    if (accept_suffix("v4")) vector = 4;
    if (vector != 1) fail("vector registers are not supported");
    if (peek().kind != Kind::kSuffix || type_named(peek().text) == Type::kNone) {
      fail("expected the type of a register, found '" + std::string(peek().text) + "'");
    }
    const Type type = type_named(take().text);
    if (type == Type::kB128 || size_of(type) == 1)
      fail("registers of type ." + std::string(name_of(type)) + " are not supported");
    do {
      syntax::Registers entry{peek().line, type, word(), -1};
      if (accept('<')) {
        entry.count = integer_within(0, kMaxRegisters, "register count");
        expect('>');
      }
      out.push_back(entry);
    } while (accept(','));
    expect(';');
  }

  // ---- instructions ----

  syntax::Instruction instruction() {
    syntax::Instruction result;
    result.line = peek().line;
    if (accept('@')) {
      result.guard_negated = accept('!');
      result.guard = word();
      result.line = peek().line;
    }
    if (peek().kind != Kind::kWord) fail("expected an instruction, found '" + std::string(peek().text) + "'");
    result.opcode = take().text;
    while (peek().kind == Kind::kSuffix) result.modifiers.push_back(take().text);
    if (accept(';')) return result;
    do {
      result.operands.push_back(operand(0));
    } while (accept(','));
    if (!peek().is(';')) fail("expected ';', found '" + std::string(peek().text) + "'", result.line);
    take();
    return result;
  }

  Operand operand(int depth) {
    if (depth > 4) fail("operand nested too deeply");
    if (accept('{')) return group(Operand::Kind::kVector, '}', depth);
    if (accept('(')) return group(Operand::Kind::kList, ')', depth);
    if (accept('[')) return address();
    Operand first = simple();
    if (!accept('|')) return first;
    Operand pair;
    pair.kind = Operand::Kind::kPair;
    pair.items.push_back(std::move(first));
    pair.items.push_back(simple());
    return pair;
  }

  Operand group(Operand::Kind kind, char close, int depth) {
    Operand result;
    result.kind = kind;
    if (accept(close)) return result;
    do {
      result.items.push_back(operand(depth + 1));
    } while (accept(','));
    expect(close);
    return result;
  }

  Operand address() {
    Operand result;
    result.kind = Operand::Kind::kAddress;
    result.items.push_back(simple());
    expect(']');
    return result;
  }

  Operand simple() {
    Operand result;
    result.negated = accept('!');
    const bool complement = accept('~');
    const bool negative = accept('-');
    const Token& token = peek();
    if (token.kind == Kind::kWord && !negative && !complement) {
      take();
      result.name = token.text;
      if (peek().kind == Kind::kSuffix && peek().glued) dotted(result);
      if (accept('+')) {
        result.offset = integer();
      } else if (peek().is('-')) {
        result.offset = integer();
      }
      return result;
    }
    if (token.kind == Kind::kInteger) {
      take();
      result.kind = Operand::Kind::kInteger;
      result.bits = negative ? 0 - token.bits : token.bits;
      if (complement) result.bits = ~result.bits;
      return result;
    }
    if ((token.kind == Kind::kFloat32 || token.kind == Kind::kFloat64) && !complement) {
      take();
      const bool single = token.kind == Kind::kFloat32;
      result.kind = single ? Operand::Kind::kFloat32 : Operand::Kind::kFloat64;
      result.bits = negative ? token.bits ^ (single ? uint64_t{1} << 31 : uint64_t{1} << 63) : token.bits;
      return result;
    }
    fail("expected an operand, found '" + std::string(token.text) + "'");
  }

  // %tid.x: one name, as it stands in the text.
  void dotted(Operand& operand) {
    const Token& suffix = take();
    operand.name = std::string_view(operand.name.data(), suffix.text.data() + suffix.text.size() - operand.name.data());
  }

  syntax::Module module_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  std::string function_;
};

}  // namespace

syntax::Module parse(std::string text) { return Parser(std::move(text)).run(); }

}  // namespace flopcuda::ptxvm
