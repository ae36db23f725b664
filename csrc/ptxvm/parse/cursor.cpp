// A place in the tokens of a module.
#include "parse/cursor.h"

#include <algorithm>

#include "error.h"

namespace flopcuda::ptxvm {

Cursor::Cursor(const syntax::Module& module) : module_(module) {
  try {
    tokens_ = tokenize(*module.text);
  } catch (const PtxError& error) {
    fail(error.message(), error.line());
  }
}

const Token& Cursor::peek(size_t ahead) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }

bool Cursor::at_symbols(std::string_view symbols) const {
  for (size_t i = 0; i < symbols.size(); ++i) {
    const Token& token = peek(i);
    if (token.kind == Token::Kind::kString || token.text != symbols.substr(i, 1) || (i > 0 && !token.glued)) {
      return false;
    }
  }
  return true;
}

const Token& Cursor::take() {
  const Token& token = peek();
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool Cursor::accept(char symbol) {
  if (!peek().is(symbol)) return false;
  take();
  return true;
}

bool Cursor::accept_suffix(std::string_view name) {
  if (!at_suffix(name)) return false;
  take();
  return true;
}

void Cursor::expect(char symbol) {
  if (!accept(symbol)) fail_expected(std::string("'") + symbol + "'");
}

std::string_view Cursor::word() {
  if (peek().kind != Token::Kind::kWord) fail_expected("a name");
  return take().text;
}

int64_t Cursor::integer() {
  const bool negative = accept('-');
  if (peek().kind != Token::Kind::kInteger) fail_expected("an integer");
  const uint64_t bits = take().bits;
  return static_cast<int64_t>(negative ? 0 - bits : bits);
}

int64_t Cursor::integer_within(int64_t low, int64_t high, const char* what) {
  const int line = peek().line;
  const int64_t value = integer();
  if (value < low || value > high) fail(std::string(what) + " out of range", line);
  return value;
}

std::string_view Cursor::quoted() {
  if (peek().kind != Token::Kind::kString) fail_expected("a string");
  return take().text;
}

void Cursor::fail(const std::string& message, int line) const {
  throw PtxError(message, function, line, module_.line_text(line));
}

void Cursor::fail_expected(const std::string& what) const {
  fail("expected " + what + ", found '" + std::string(peek().text) + "'");
}

}  // namespace flopcuda::ptxvm
