// A place in the tokens of a module: looks at them, takes them, and fails with the line it stands at.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "parse/lexer.h"
#include "parse/syntax.h"

namespace flopcuda::ptxvm {

class Cursor {
 public:
  // Throws PtxError on text that has no tokens. The module must outlive the cursor.
  explicit Cursor(const syntax::Module& module);

  const Token& peek(size_t ahead = 0) const;
  bool at_end() const { return peek().kind == Token::Kind::kEnd; }
  bool at_suffix(std::string_view name) const { return peek().kind == Token::Kind::kSuffix && peek().text == name; }
  // Whether these characters of punctuation come next, with no blank between them.
  bool at_symbols(std::string_view symbols) const;
  const Token& take();

  // Takes the token if it is this one.
  bool accept(char symbol);
  bool accept_suffix(std::string_view name);

  // Take what must stand here.
  void expect(char symbol);
  std::string_view word();
  int64_t integer();
  int64_t integer_within(int64_t low, int64_t high, const char* what);
  std::string_view quoted();

  [[noreturn]] void fail(const std::string& message) const { fail(message, peek().line); }
  [[noreturn]] void fail(const std::string& message, int line) const;
  [[noreturn]] void fail_expected(const std::string& what) const;

  std::string function;  // that the text belongs to, for messages

 private:
  const syntax::Module& module_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

}  // namespace flopcuda::ptxvm
