// Variables in text.
#include "parse/declarations.h"

#include "parse/constants.h"

namespace flopcuda::ptxvm {
namespace {

constexpr int64_t kMaxVariableBytes = int64_t{1} << 30;
constexpr int kMaxDimensions = 64;

struct NamedSpace {
  std::string_view name;
  Space space;
};
constexpr NamedSpace kSpaces[] = {
    {"global", Space::kGlobal}, {"shared", Space::kShared}, {"local", Space::kLocal},
    {"const", Space::kConst},   {"param", Space::kParam},
};

// The initial values of one variable, row by row.
class Initializer {
 public:
  Initializer(Cursor& cursor, syntax::Variable& variable, const std::vector<int64_t>& extents)
      : cursor_(cursor), variable_(variable), extents_(extents), size_(size_of(variable.type)) {}

  void run() { values(0, 0); }

 private:
  // Bytes of one element of this dimension.
  int64_t stride(size_t dimension) const {
    int64_t bytes = size_;
    for (size_t d = dimension + 1; d < extents_.size(); ++d) bytes *= extents_[d];
    return bytes;
  }

  void values(size_t dimension, int64_t position) {
    if (dimension == extents_.size()) return value(position);
    cursor_.expect('{');
    if (cursor_.accept('}')) return;
    const bool open_ended = dimension == 0 && variable_.unbounded;
    int64_t count = 0;
    do {
      if (!open_ended && count == extents_[dimension]) cursor_.fail("more initial values than elements");
      if (count * stride(dimension) > kMaxVariableBytes) cursor_.fail("variable larger than 1 GiB");
      values(dimension + 1, position + count++ * stride(dimension));
    } while (cursor_.accept(','));
    cursor_.expect('}');
    if (open_ended) variable_.size = count * stride(0);
  }

  void value(int64_t position) {
    if (cursor_.peek().kind == Token::Kind::kWord) {
      if (size_ != 8) cursor_.fail("an address needs 8 bytes");
      return address(position, 0);
    }
    const bool masked = cursor_.peek().kind == Token::Kind::kInteger && cursor_.peek(1).is('(');
    if (masked) return masked_address(position);
    const int line = cursor_.peek().line;
    const Constant constant = constant_expression(cursor_);
    if (variable_.type == Type::kF32 && !constant.is_integer()) return put(position, as_float32(constant));
    if (variable_.type == Type::kF64 && !constant.is_integer()) return put(position, as_float64(constant));
    const bool whole = is_integer(variable_.type) || is_untyped(variable_.type);
    if (!whole || !constant.is_integer()) cursor_.fail("the initial value is of another type", line);
    put(position, constant.bits);
  }

  // 0xFF00(symbol): one byte of an address.
  void masked_address(int64_t position) {
    const int line = cursor_.peek().line;
    const uint64_t mask = cursor_.take().bits;
    int shift = 0;
    while (shift < 64 && mask != uint64_t{0xff} << shift) shift += 8;
    if (shift == 64 || size_ != 1) cursor_.fail("a masked address is one byte (0xFF, 0xFF00, ...)", line);
    cursor_.expect('(');
    address(position, shift);
    cursor_.expect(')');
  }

  // symbol, generic(symbol), each with an optional constant added.
  void address(int64_t position, int shift) {
    syntax::Relocation entry;
    entry.line = cursor_.peek().line;
    entry.position = position;
    entry.size = size_;
    entry.shift = shift;
    entry.symbol = cursor_.word();
    if (entry.symbol == "generic" && cursor_.accept('(')) {
      entry.symbol = cursor_.word();
      cursor_.expect(')');
    }
    if (cursor_.accept('+')) entry.addend = static_cast<uint64_t>(integer_expression(cursor_));
    if (!is_integer(variable_.type) && !is_untyped(variable_.type)) {
      cursor_.fail("the initial value is of another type", entry.line);
    }
    put(position, 0);
    variable_.relocations.push_back(entry);
  }

  void put(int64_t position, uint64_t bits) {
    std::vector<uint8_t>& bytes = variable_.initial;
    if (static_cast<int64_t>(bytes.size()) < position + size_) bytes.resize(static_cast<size_t>(position + size_));
    for (int i = 0; i < size_; ++i) {
      bytes[static_cast<size_t>(position + i)] = static_cast<uint8_t>(i < 8 ? bits >> (8 * i) : 0);
    }
  }

  Cursor& cursor_;
  syntax::Variable& variable_;
  const std::vector<int64_t>& extents_;
  const int size_;
};

class Declaration {
 public:
  Declaration(Cursor& cursor, Space space) : cursor_(cursor) { common_.space = space; }

  // What stands in front of the names: .align, .attribute, .ptr and the type.
  void prefix(bool is_extern) {
    common_.is_extern = is_extern;
    while (cursor_.peek().kind == Token::Kind::kSuffix && common_.type == Type::kNone) one_prefix();
    if (common_.type == Type::kNone) cursor_.fail("variable without a type");
    if (common_.space == Space::kParam) pointer();
    if (common_.align == 0) common_.align = size_of(common_.type) * vector_;
  }

  syntax::Variable declarator() {
    syntax::Variable variable = common_;
    variable.line = cursor_.peek().line;
    variable.name = cursor_.word();
    variable.size = size_of(variable.type);
    extents_.clear();
    while (cursor_.accept('[')) extent(variable);
    if (vector_ > 1) add_extent(variable, vector_);
    if (cursor_.accept('=')) initializer(variable);
    variable.is_declaration = variable.is_extern && variable.space != Space::kShared;
    return variable;
  }

 private:
  void one_prefix() {
    const std::string_view name = cursor_.take().text;
    if (name == "align") {
      common_.align = alignment();
    } else if (name == "attribute") {
      skip_attribute(cursor_);
    } else if (name == "v2" || name == "v4") {
      vector_ = name == "v2" ? 2 : 4;
      if (common_.space == Space::kParam) cursor_.fail("a parameter cannot be a vector");
    } else if (is_storable(type_named(name))) {
      common_.type = type_named(name);
      if (size_of(common_.type) * vector_ > 16) cursor_.fail("vector over 128 bits");
    } else {
      cursor_.fail("unknown attribute or type '." + std::string(name) + "' of a variable");
    }
  }

  // .ptr{.space}{.align n}: what the caller promises of a pointer, of no consequence here.
  void pointer() {
    if (!cursor_.accept_suffix("ptr")) return;
    if (cursor_.peek().kind == Token::Kind::kSuffix && declared_space(cursor_.peek().text) != Space::kGeneric) {
      cursor_.take();
    }
    if (cursor_.accept_suffix("align")) alignment();
  }

  int64_t alignment() {
    const int64_t value = cursor_.integer_within(1, 1 << 16, "alignment");
    if (value & (value - 1)) cursor_.fail("alignment is not a power of two");
    return value;
  }

  void extent(syntax::Variable& variable) {
    if (cursor_.accept(']')) {
      if (!extents_.empty()) cursor_.fail("only the first extent of an array may be left open");
      variable.unbounded = true;
      extents_.push_back(0);
      return;
    }
    const int64_t value = cursor_.integer_within(1, kMaxVariableBytes, "array extent");
    cursor_.expect(']');
    add_extent(variable, value);
  }

  void add_extent(syntax::Variable& variable, int64_t value) {
    if (extents_.size() == kMaxDimensions) cursor_.fail("array of more than 64 dimensions");
    if (variable.size > kMaxVariableBytes / value) cursor_.fail("variable larger than 1 GiB");
    extents_.push_back(value);
    variable.size *= value;
  }

  void initializer(syntax::Variable& variable) {
    if (variable.space != Space::kGlobal && variable.space != Space::kConst) {
      cursor_.fail("only .global and .const variables have initial values");
    }
    if (variable.is_extern) cursor_.fail("an .extern variable has no initial value");
    Initializer(cursor_, variable, extents_).run();
  }

  Cursor& cursor_;
  syntax::Variable common_;
  int64_t vector_ = 1;
  std::vector<int64_t> extents_;  // of the variable at hand; a vector's width is the last
};

}  // namespace

Space declared_space(std::string_view directive) {
  for (const NamedSpace& entry : kSpaces) {
    if (entry.name == directive) return entry.space;
  }
  return Space::kGeneric;
}

void parse_variables(Cursor& cursor, Space space, bool is_extern,
                     const std::function<void(syntax::Variable)>& declare) {
  Declaration declaration(cursor, space);
  declaration.prefix(is_extern);
  do {
    syntax::Variable variable = declaration.declarator();
    if (variable.unbounded && variable.initial.empty()) {
      if (!is_extern) cursor.fail("array without a size", variable.line);
      variable.size = 0;
    }
    declare(std::move(variable));
  } while (cursor.accept(','));
  cursor.expect(';');
}

std::vector<syntax::Variable> parse_parameters(Cursor& cursor) {
  std::vector<syntax::Variable> list;
  cursor.expect('(');
  if (cursor.accept(')')) return list;
  do {
    const bool in_register = cursor.at_suffix("reg");
    if (!in_register && !cursor.at_suffix("param")) cursor.fail_expected(".param or .reg");
    cursor.take();
    Declaration declaration(cursor, in_register ? Space::kRegister : Space::kParam);
    declaration.prefix(false);
    list.push_back(declaration.declarator());
  } while (cursor.accept(','));
  cursor.expect(')');
  return list;
}

void skip_attribute(Cursor& cursor) {
  cursor.expect('(');
  do {
    if (cursor.accept_suffix("managed")) continue;
    if (!cursor.accept_suffix("unified")) cursor.fail_expected(".managed or .unified");
    cursor.expect('(');
    cursor.integer();
    cursor.expect(',');
    cursor.integer();
    cursor.expect(')');
  } while (cursor.accept(','));
  cursor.expect(')');
}

}  // namespace flopcuda::ptxvm
