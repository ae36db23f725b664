// Cuts PTX text into tokens.
#include "parse/lexer.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "error.h"

namespace flopcuda::ptxvm {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_word_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '$' || c == '%';
}
bool is_word(char c) { return is_word_start(c) || is_digit(c); }
bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f' || c == '\v'; }

int hex_value(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return 99;
}

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  std::vector<Token> run() {
    while (true) {
      const bool glued = !skip_blanks();
      if (at_ >= text_.size()) break;
      next(glued);
    }
    tokens_.push_back({Token::Kind::kEnd, false, line_, "end of file", 0});
    return std::move(tokens_);
  }

 private:
  char peek(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }

  [[noreturn]] void fail(const std::string& message) const { throw PtxError(message, "", line_); }

  // Whether anything was skipped; the start of the file counts as such.
  bool skip_blanks() {
    const size_t start = at_;
    while (at_ < text_.size()) {
      if (is_blank(text_[at_])) {
        line_ += text_[at_++] == '\n';
      } else if (peek() == '/' && peek(1) == '/') {
        while (at_ < text_.size() && text_[at_] != '\n') ++at_;
      } else if (peek() == '/' && peek(1) == '*') {
        skip_comment();
      } else {
        break;
      }
    }
    return at_ != start || at_ == 0;
  }

  void skip_comment() {
    const size_t end = text_.find("*/", at_ + 2);
    if (end == std::string_view::npos) fail("comment without an end");
    for (; at_ < end + 2; ++at_) line_ += text_[at_] == '\n';
  }

  void push(Token::Kind kind, bool glued, size_t begin, size_t end, uint64_t bits = 0) {
    tokens_.push_back({kind, glued, line_, text_.substr(begin, end - begin), bits});
    at_ = end;
  }

  size_t end_of_word(size_t from) const {
    while (from < text_.size() && is_word(text_[from])) ++from;
    return from;
  }

  void next(bool glued) {
    const char c = peek();
    if (is_word_start(c)) return push(Token::Kind::kWord, glued, at_, end_of_word(at_ + 1));
    if (is_digit(c)) return number(glued);
    if (c == '.' && is_digit(peek(1)) && !glued) return decimal(glued);
    if (c == '.' && is_word(peek(1))) return suffix(glued);
    if (c == '"') return quoted(glued);
    if (c != '\0' && std::strchr("{}[]()<>,;:+-=@!|~*/&?^", c)) return push(Token::Kind::kSymbol, glued, at_, at_ + 1);
    fail(static_cast<unsigned char>(c) >= 0x20 && static_cast<unsigned char>(c) < 0x7f
             ? std::string("unexpected character '") + c + "'"
             : "unexpected byte " + std::to_string(static_cast<unsigned char>(c)));
  }

  void suffix(bool glued) {
    size_t end = end_of_word(at_ + 1);
    while (end + 2 < text_.size() && text_[end] == ':' && text_[end + 1] == ':' && is_word(text_[end + 2])) {
      end = end_of_word(end + 2);
    }
    push(Token::Kind::kSuffix, glued, at_ + 1, end);
  }

  void quoted(bool glued) {
    size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != '"' && text_[end] != '\n') ++end;
    if (end >= text_.size() || text_[end] != '"') fail("string without an end");
    push(Token::Kind::kString, glued, at_ + 1, end);
    ++at_;
  }

  void number(bool glued) {
    const char marker = peek(1) | 0x20;
    if (peek() == '0' && marker == 'f' && ieee(glued, Token::Kind::kFloat32, 8)) return;
    if (peek() == '0' && marker == 'd' && ieee(glued, Token::Kind::kFloat64, 16)) return;
    if (peek() == '0' && marker == 'x') return integer(glued, at_ + 2, 16);
    if (peek() == '0' && marker == 'b') return integer(glued, at_ + 2, 2);
    size_t end = at_;
    while (end < text_.size() && is_digit(text_[end])) ++end;
    const bool fraction = end < text_.size() && (text_[end] == '.' || (text_[end] | 0x20) == 'e');
    if (fraction) return decimal(glued);
    integer(glued, at_, peek() == '0' && end - at_ > 1 ? 8 : 10);
  }

  // 0f and 0d literals have exactly so many hexadecimal digits.
  bool ieee(bool glued, Token::Kind kind, size_t digits) {
    if (at_ + 2 + digits > text_.size()) return false;
    uint64_t bits = 0;
    for (size_t i = 0; i < digits; ++i) {
      const int value = hex_value(text_[at_ + 2 + i]);
      if (value > 15) return false;
      bits = bits * 16 + static_cast<uint64_t>(value);
    }
    push(kind, glued, at_, at_ + 2 + digits, bits);
    return true;
  }

  void integer(bool glued, size_t begin, uint64_t base) {
    uint64_t value = 0;
    size_t end = begin;
    for (; end < text_.size() && static_cast<uint64_t>(hex_value(text_[end])) < base; ++end) {
      const uint64_t digit = static_cast<uint64_t>(hex_value(text_[end]));
      if (value > (UINT64_MAX - digit) / base) fail("integer over 64 bits");
      value = value * base + digit;
    }
    if (end == begin) fail("number without digits");
    if (end < text_.size() && text_[end] == 'U') ++end;
    if (end < text_.size() && is_word(text_[end])) {
      fail("malformed number '" + std::string(text_.substr(at_, end_of_word(end) - at_)) + "'");
    }
    push(Token::Kind::kInteger, glued, at_, end, value);
  }

  void decimal(bool glued) {
    size_t end = at_;
    while (end < text_.size() && (is_digit(text_[end]) || text_[end] == '.')) ++end;
    if (end < text_.size() && (text_[end] | 0x20) == 'e') {
      ++end;
      if (end < text_.size() && (text_[end] == '+' || text_[end] == '-')) ++end;
      while (end < text_.size() && is_digit(text_[end])) ++end;
    }
    const std::string digits(text_.substr(at_, end - at_));
    char* stop = nullptr;
    const double value = std::strtod(digits.c_str(), &stop);
    const bool ends = end == text_.size() || !is_word(text_[end]);
    if (*stop != '\0' || !ends)
      fail("malformed number '" + std::string(text_.substr(at_, end_of_word(end) - at_)) + "'");
    uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    push(Token::Kind::kFloat64, glued, at_, end, bits);
  }

  std::string_view text_;
  size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view text) { return Lexer(text).run(); }

}  // namespace flopcuda::ptxvm
