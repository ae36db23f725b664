// PTX text -> syntax tree, by recursive descent: the module, its functions and their statements.
#include "parse/parser.h"

#include <algorithm>
#include <limits>

#include "error.h"
#include "parse/constants.h"
#include "parse/cursor.h"
#include "parse/declarations.h"

namespace flopcuda::ptxvm {

namespace syntax {

std::string Module::line_text(int line) const {
  if (line < 1 || line > static_cast<int>(lines.size())) return "";
  std::string_view text = lines[static_cast<size_t>(line) - 1];
  const size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return "";
  text = text.substr(begin, text.find_last_not_of(" \t\r") + 1 - begin);
  size_t length = std::min<size_t>(text.size(), 200);
  const auto inside_character = [&](size_t at) { return at < text.size() && (text[at] & 0xc0) == 0x80; };  // UTF-8
  while (length > 0 && inside_character(length)) --length;
  return std::string(text.substr(0, length));
}

}  // namespace syntax

namespace {

using syntax::Operand;
using Kind = Token::Kind;

constexpr int64_t kMaxRegisters = int64_t{1} << 20;
constexpr int kMaxNesting = 64;
constexpr int64_t kMaxThreads = 1024;

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

syntax::Module with_text(std::string text) {
  syntax::Module module;
  module.text = std::make_shared<const std::string>(std::move(text));
  module.lines = split_lines(*module.text);
  return module;
}

// sm_80, sm_90a, sm_100f. An architecture that is not known is no error: what counts is whether the instructions are.
bool is_architecture(std::string_view name) {
  if (name.substr(0, 3) != "sm_" && name.substr(0, 8) != "compute_") return false;
  name.remove_prefix(name.find('_') + 1);
  if (!name.empty() && (name.back() == 'a' || name.back() == 'f')) name.remove_suffix(1);
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  return (name.size() == 2 || name.size() == 3) && std::all_of(name.begin(), name.end(), is_digit);
}

bool is_target_option(std::string_view name) {
  return name == "debug" || name == "texmode_unified" || name == "texmode_independent";
}

class Parser {
 public:
  explicit Parser(std::string text) : module_(with_text(std::move(text))), cursor_(module_) {}

  syntax::Module run() {
    header();
    while (!cursor_.at_end()) directive();
    return std::move(module_);
  }

 private:
  [[noreturn]] void fail(const std::string& message) const { cursor_.fail(message); }

  // ---- module level ----

  void header() {
    if (!cursor_.accept_suffix("version")) fail("a PTX module begins with .version");
    version();
    if (!cursor_.accept_suffix("target")) fail("expected .target after .version");
    target();
    if (!cursor_.accept_suffix("address_size")) fail("expected .address_size 64 after .target");
    cursor_.integer_within(64, 64, "an address size other than 64 is");
  }

  void version() {
    if (cursor_.peek().kind != Kind::kFloat64) fail("expected a version like 8.0");
    const std::string number(cursor_.peek().text);
    const int major = std::atoi(number.c_str());
    if (major < 6 || major > 9) fail("PTX ISA version " + number + " is not supported (6.0 to 9.x are)");
    module_.version = number;
    cursor_.take();
  }

  void target() {
    do {
      const std::string_view name = cursor_.peek().text;
      const bool first = module_.target.empty();
      if (!is_architecture(name) && (first || !is_target_option(name))) {
        fail("unknown target '" + std::string(name) + "'");
      }
      if (first) module_.target = std::string(name);
      cursor_.take();
    } while (cursor_.accept(','));
  }

  void directive() {
    if (cursor_.peek().kind != Kind::kSuffix) cursor_.fail_expected("a directive");
    if (cursor_.accept_suffix("file")) return file();
    if (cursor_.accept_suffix("section")) return section();
    if (cursor_.accept_suffix("pragma")) return pragma();
    linked();
  }

  void file() {
    const int64_t index = cursor_.integer_within(0, 1 << 20, ".file index");
    const std::string_view name = cursor_.quoted();
    if (static_cast<int64_t>(module_.files.size()) <= index) module_.files.resize(static_cast<size_t>(index) + 1);
    module_.files[static_cast<size_t>(index)] = std::string(name);
    while (cursor_.accept(',')) cursor_.integer();  // time stamp, size
  }

  // DWARF: of no consequence for execution.
  void section() {
    const int line = cursor_.peek().line;
    cursor_.take();
    cursor_.expect('{');
    while (!cursor_.accept('}')) {
      if (cursor_.at_end()) cursor_.fail("section without an end", line);
      cursor_.take();
    }
  }

  // Advice for ptxas, which changes no result.
  void pragma() {
    do {
      cursor_.quoted();
    } while (cursor_.accept(','));
    cursor_.expect(';');
  }

  void linked() {
    std::string_view linkage;
    for (std::string_view name : {"extern", "visible", "weak", "common"}) {
      if (cursor_.accept_suffix(name)) linkage = name;
    }
    const bool is_extern = linkage == "extern";
    if (cursor_.accept_suffix("entry")) return function(true, is_extern);
    if (cursor_.accept_suffix("func")) return function(false, is_extern);
    if (cursor_.peek().kind != Kind::kSuffix) cursor_.fail_expected("a declaration");
    const Space space = declared_space(cursor_.peek().text);
    if (space != Space::kGlobal && space != Space::kShared && space != Space::kConst) {
      fail("unknown directive '." + std::string(cursor_.peek().text) + "'");
    }
    if (linkage == "common" && space != Space::kGlobal) fail(".common variables are .global");
    cursor_.take();
    parse_variables(cursor_, space, is_extern,
                    [this](syntax::Variable v) { module_.variables.push_back(std::move(v)); });
  }

  // ---- functions ----

  void function(bool is_entry, bool is_extern) {
    syntax::Function function;
    function.is_entry = is_entry;
    while (cursor_.accept_suffix("attribute")) skip_attribute(cursor_);
    if (!is_entry && cursor_.peek().is('(')) function.returns = parse_parameters(cursor_);
    function.line = cursor_.peek().line;
    function.name = cursor_.word();
    cursor_.function = std::string(function.name);
    if (cursor_.peek().is('(')) function.parameters = parse_parameters(cursor_);
    while (cursor_.peek().kind == Kind::kSuffix) performance_directive(function);
    if (cursor_.peek().is('{')) {
      if (is_extern) fail("an .extern function has a body");
      function.has_body = true;
      body(function);
    } else {
      cursor_.expect(';');
    }
    cursor_.function.clear();
    module_.functions.push_back(std::move(function));
  }

  void performance_directive(syntax::Function& function) {
    const std::string_view name = cursor_.peek().text;
    const bool known = name == "pragma" || (name == "noreturn") != function.is_entry;
    const int line = cursor_.peek().line;
    if (known) cursor_.take();
    if (known && name == "pragma") return pragma();
    if (known && name == "noreturn") return;
    if (known && (name == "maxntid" || name == "reqntid")) return block_size(function, name == "reqntid", line);
    if (known && name == "reqnctapercluster") return cluster_size();
    if (known && (name == "explicitcluster" || name == "blocksareclusters")) return;
    const bool counted =
        name == "minnctapersm" || name == "maxnctapersm" || name == "maxnreg" || name == "maxclusterrank";
    if (!known || !counted) cursor_.fail("directive '." + std::string(name) + "' is not supported here", line);
    cursor_.integer_within(0, std::numeric_limits<int>::max(), "a value of a directive is");
  }

  // Up to three extents; their product.
  int64_t extents(int64_t highest, const char* what) {
    int64_t product = 1;
    int count = 0;
    do {
      if (++count > 3) fail("more than three extents");
      product *= cursor_.integer_within(1, highest, what);
    } while (cursor_.accept(','));
    return product;
  }

  void block_size(syntax::Function& function, bool exact, int line) {
    if (function.max_threads != 0 && function.exact_threads != exact) {
      cursor_.fail(".maxntid and .reqntid exclude each other", line);
    }
    function.max_threads = extents(kMaxThreads, "an extent of the block is");
    function.exact_threads = exact;
  }

  void cluster_size() {
    const int line = cursor_.peek().line;
    if (extents(kMaxThreads, "an extent of the cluster is") != 1) {
      cursor_.fail("clusters of more than one block are not supported", line);
    }
  }

  void body(syntax::Function& function) {
    int depth = 0;
    do {
      const int line = cursor_.peek().line;
      if (cursor_.at_end()) cursor_.fail("function without an end", function.line);
      if (cursor_.accept('{')) {
        if (++depth > kMaxNesting) cursor_.fail("scopes nested too deeply", line);
        if (depth > 1) function.body.push_back(syntax::ScopeBegin{});
      } else if (cursor_.accept('}')) {
        if (--depth > 0) function.body.push_back(syntax::ScopeEnd{});
      } else {
        statement(function.body);
      }
    } while (depth > 0);
  }

  // ---- statements ----

  void statement(std::vector<syntax::Statement>& out) {
    if (cursor_.peek().kind == Kind::kSuffix) return body_directive(out);
    if (cursor_.peek().kind == Kind::kWord && cursor_.peek(1).is(':')) return label(out);
    out.push_back(instruction());
  }

  void label(std::vector<syntax::Statement>& out) {
    const int line = cursor_.peek().line;
    const std::string_view name = cursor_.word();
    cursor_.expect(':');
    const bool of_calls = cursor_.at_suffix("calltargets");
    if (of_calls || cursor_.at_suffix("branchtargets")) {
      cursor_.take();
      syntax::Targets targets{line, name, of_calls, {}};
      do {
        targets.names.push_back(cursor_.word());
      } while (cursor_.accept(','));
      cursor_.expect(';');
      out.push_back(std::move(targets));
    } else if (cursor_.accept_suffix("callprototype")) {
      out.push_back(prototype(line, name));
    } else {
      out.push_back(syntax::Label{line, name});
    }
  }

  syntax::Prototype prototype(int line, std::string_view name) {
    syntax::Prototype result{line, name, {}, {}};
    if (cursor_.peek().is('(')) result.returns = parse_parameters(cursor_);
    cursor_.word();
    if (cursor_.peek().is('(')) result.parameters = parse_parameters(cursor_);
    cursor_.accept_suffix("noreturn");
    cursor_.expect(';');
    return result;
  }

  void body_directive(std::vector<syntax::Statement>& out) {
    if (cursor_.accept_suffix("loc")) {
      out.push_back(location());
      return;
    }
    if (cursor_.accept_suffix("pragma")) return pragma();
    if (cursor_.accept_suffix("reg")) return registers(out);
    const bool is_extern = cursor_.accept_suffix("extern");
    const Space space = declared_space(cursor_.peek().text);
    if (cursor_.peek().kind != Kind::kSuffix || space == Space::kGeneric) {
      fail("unknown directive '." + std::string(cursor_.peek().text) + "'");
    }
    if (is_extern && space != Space::kShared) fail("only .shared variables are .extern in a function");
    cursor_.take();
    parse_variables(cursor_, space, is_extern, [&out](syntax::Variable v) { out.push_back(std::move(v)); });
  }

  syntax::Location location() {
    syntax::Location result;
    result.file = static_cast<int>(cursor_.integer_within(0, 1 << 20, "file index"));
    result.line = static_cast<int>(cursor_.integer_within(0, std::numeric_limits<int>::max(), "line number"));
    cursor_.integer();
    // function_name LABEL [+ n], inlined_at file line column: where the code was inlined.
    while (cursor_.accept(',')) {
      const std::string_view what = cursor_.word();
      if (what == "function_name") {
        cursor_.word();
        if (cursor_.accept('+')) cursor_.integer();
      } else if (what == "inlined_at") {
        for (int i = 0; i < 3; ++i) cursor_.integer();
      } else {
        fail("unknown word '" + std::string(what) + "' of .loc");
      }
    }
    return result;
  }

  void registers(std::vector<syntax::Statement>& out) {
    if (cursor_.at_suffix("v2") || cursor_.at_suffix("v4")) fail("vector registers are not supported");
    const Token& token = cursor_.peek();
    const Type type = token.kind == Kind::kSuffix ? type_named(token.text) : Type::kNone;
    if (type == Type::kNone) cursor_.fail_expected("the type of a register");
    if (type != Type::kPred && (!is_storable(type) || type == Type::kB128 || size_of(type) == 1)) {
      fail("registers of type ." + std::string(name_of(type)) + " are not supported");
    }
    cursor_.take();
    do {
      syntax::Registers entry{cursor_.peek().line, type, cursor_.word(), -1};
      if (cursor_.accept('<')) {
        entry.count = cursor_.integer_within(0, kMaxRegisters, "register count");
        cursor_.expect('>');
      }
      out.push_back(entry);
    } while (cursor_.accept(','));
    cursor_.expect(';');
  }

  // ---- instructions ----

  syntax::Instruction instruction() {
    syntax::Instruction result;
    result.line = cursor_.peek().line;
    if (cursor_.accept('@')) {
      result.guard_negated = cursor_.accept('!');
      result.guard = cursor_.word();
      result.line = cursor_.peek().line;
    }
    if (cursor_.peek().kind != Kind::kWord) cursor_.fail_expected("an instruction");
    result.opcode = cursor_.take().text;
    while (cursor_.peek().kind == Kind::kSuffix) result.modifiers.push_back(cursor_.take().text);
    if (cursor_.accept(';')) return result;
    do {
      result.operands.push_back(operand(0));
    } while (cursor_.accept(','));
    if (!cursor_.accept(';')) {
      cursor_.fail("expected ';', found '" + std::string(cursor_.peek().text) + "'", result.line);
    }
    return result;
  }

  Operand operand(int depth) {
    if (depth > 4) fail("operand nested too deeply");
    if (cursor_.accept('{')) return group(Operand::Kind::kVector, '}', depth);
    if (at_list()) {
      cursor_.take();
      return group(Operand::Kind::kList, ')', depth);
    }
    if (cursor_.accept('[')) return address();
    Operand first = simple();
    if (!cursor_.accept('|')) return first;
    Operand pair;
    pair.kind = Operand::Kind::kPair;
    pair.items.push_back(std::move(first));
    pair.items.push_back(simple());
    return pair;
  }

  // (a, b) of a call, not a constant in parentheses.
  bool at_list() const {
    return cursor_.peek().is('(') && (cursor_.peek(1).kind == Kind::kWord || cursor_.peek(1).is(')'));
  }

  Operand group(Operand::Kind kind, char close, int depth) {
    Operand result;
    result.kind = kind;
    if (cursor_.accept(close)) return result;
    do {
      result.items.push_back(operand(depth + 1));
    } while (cursor_.accept(','));
    cursor_.expect(close);
    return result;
  }

  Operand address() {
    Operand result;
    result.kind = Operand::Kind::kAddress;
    result.items.push_back(simple());
    cursor_.expect(']');
    return result;
  }

  Operand simple() {
    const bool negated = cursor_.peek().is('!') && cursor_.peek(1).kind == Kind::kWord;
    if (negated) cursor_.take();
    if (cursor_.peek().kind == Kind::kWord) return named(negated);
    if (begins_constant(cursor_.peek())) return constant();
    cursor_.fail_expected("an operand");
  }

  // name, %tid.x, name + constant
  Operand named(bool negated) {
    Operand result;
    result.negated = negated;
    result.name = cursor_.take().text;
    if (cursor_.peek().kind == Kind::kSuffix && cursor_.peek().glued) {
      const std::string_view suffix = cursor_.take().text;
      const size_t length = static_cast<size_t>(suffix.data() + suffix.size() - result.name.data());
      result.name = std::string_view(result.name.data(), length);
    }
    if (cursor_.accept('+')) result.offset = integer_expression(cursor_);
    return result;
  }

  Operand constant() {
    const Constant value = constant_expression(cursor_);
    Operand result;
    result.kind = value.is_integer()                       ? Operand::Kind::kInteger
                  : value.kind == Constant::Kind::kFloat32 ? Operand::Kind::kFloat32
                                                           : Operand::Kind::kFloat64;
    result.bits = value.bits;
    return result;
  }

  syntax::Module module_;
  Cursor cursor_;
};

}  // namespace

syntax::Module parse(std::string text) { return Parser(std::move(text)).run(); }

}  // namespace flopcuda::ptxvm
