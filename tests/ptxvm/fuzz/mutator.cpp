// Damage to PTX texts. Much of it keeps the text well formed (another number, another register of the same kind, lines
// in another order), for such mutants get furthest.
#include "mutator.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace flopcuda::fuzz {
namespace {

using Random = std::mt19937_64;

constexpr std::string_view kNumbers[] = {"0",
                                         "1",
                                         "2",
                                         "3",
                                         "7",
                                         "15",
                                         "16",
                                         "31",
                                         "32",
                                         "33",
                                         "63",
                                         "64",
                                         "127",
                                         "128",
                                         "255",
                                         "256",
                                         "1023",
                                         "1024",
                                         "4095",
                                         "4096",
                                         "65535",
                                         "65536",
                                         "1048576",
                                         "0x7fffffff",
                                         "0x80000000",
                                         "0xffffffff",
                                         "0x100000000",
                                         "0x7fffffffffffffff",
                                         "0x8000000000000000",
                                         "0xffffffffffffffff",
                                         "0x10000000000000000",
                                         "1152921504606846976",
                                         "1073741824",
                                         "-1",
                                         "-32",
                                         "-2147483648",
                                         "0f7FC00000",
                                         "0f7F800000",
                                         "0f00000001",
                                         "0d7FF0000000000000",
                                         "1e400",
                                         "0.5",
                                         "017",
                                         "0b1",
                                         "08"};

size_t below(Random& random, size_t count) { return static_cast<size_t>(random() % count); }

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '$' ||
         c == '%' || c == '.';
}
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// Words with their dots, and single characters; blanks are left out.
std::vector<std::string_view> split_tokens(std::string_view text) {
  std::vector<std::string_view> tokens;
  for (size_t at = 0; at < text.size();) {
    size_t end = at + 1;
    if (is_word(text[at])) {
      while (end < text.size() && is_word(text[end])) ++end;
    }
    if (!is_blank(text[at])) tokens.push_back(text.substr(at, end - at));
    at = end;
  }
  return tokens;
}

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size() - 1) + 1;
    lines.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return lines;
}

// Tokens of one kind may stand for each other: %r1 and %r7, .u32 and .f64, two numbers.
std::string_view kind_of(std::string_view token) {
  if (is_digit(token[0])) return "0";
  size_t end = 1;
  while (end < token.size() && token[0] == '%' && !is_digit(token[end])) ++end;
  return token.substr(0, end);
}

std::string join(const std::vector<std::string_view>& parts) {
  std::string result;
  for (std::string_view part : parts) result += part;
  return result;
}

// One damage after another to one text.
class Damage {
 public:
  Damage(std::string text, const std::vector<std::string>& corpus, const std::vector<std::string_view>& tokens,
         Random& random)
      : text_(std::move(text)), corpus_(corpus), all_tokens_(tokens), random_(random) {}

  void apply() {
    if (text_.empty()) return;
    using Kind = void (Damage::*)();
    constexpr Kind kKinds[] = {
        &Damage::flip_bit,      &Damage::set_byte,      &Damage::delete_token,  &Damage::copy_token,
        &Damage::swap_tokens,   &Damage::foreign_token, &Damage::related_token, &Damage::related_token,
        &Damage::related_token, &Damage::edit_number,   &Damage::edit_number,   &Damage::edit_number,
        &Damage::delete_line,   &Damage::copy_line,     &Damage::swap_lines,    &Damage::swap_lines,
        &Damage::foreign_line,  &Damage::foreign_line,  &Damage::truncate,      &Damage::splice};
    (this->*kKinds[below(random_, std::size(kKinds))])();
  }
  std::string take() { return std::move(text_); }

 private:
  size_t place() { return below(random_, text_.size()); }
  std::string_view any_token() { return all_tokens_[below(random_, all_tokens_.size())]; }
  const std::string& any_text() { return corpus_[below(random_, corpus_.size())]; }

  void flip_bit() { text_[place()] ^= static_cast<char>(1 << below(random_, 8)); }
  void set_byte() { text_[place()] = static_cast<char>(random_()); }

  // Applies edit(token) to one token and puts what it returns in its place.
  template <class Edit>
  void edit_token(Edit edit) {
    const std::vector<std::string_view> tokens = split_tokens(text_);
    if (tokens.empty()) return;
    const std::string_view token = tokens[below(random_, tokens.size())];
    const size_t at = static_cast<size_t>(token.data() - text_.data());
    text_.replace(at, token.size(), edit(token));
  }
  void delete_token() {
    edit_token([](std::string_view) { return std::string(); });
  }
  void copy_token() {
    edit_token([](std::string_view token) { return std::string(token) + " " + std::string(token); });
  }
  void foreign_token() {
    edit_token([this](std::string_view) { return std::string(any_token()); });
  }
  void related_token() {
    edit_token([this](std::string_view token) {
      for (int attempt = 0; attempt < 200; ++attempt) {
        const std::string_view other = any_token();
        if (other != token && kind_of(other) == kind_of(token)) return std::string(other);
      }
      return std::string(token);
    });
  }
  void edit_number() {
    for (int attempt = 0; attempt < 200; ++attempt) {
      const size_t at = place();
      if (!is_digit(text_[at]) || (at > 0 && is_word(text_[at - 1]))) continue;
      size_t end = at;
      while (end < text_.size() && is_word(text_[end])) ++end;
      text_.replace(at, end - at, kNumbers[below(random_, std::size(kNumbers))]);
      return;
    }
  }
  void swap_tokens() {
    const std::vector<std::string_view> tokens = split_tokens(text_);
    if (tokens.size() < 2) return;
    std::string_view first = tokens[below(random_, tokens.size())], second = tokens[below(random_, tokens.size())];
    if (first.data() > second.data()) std::swap(first, second);
    if (first.data() == second.data()) return;
    const size_t first_end = static_cast<size_t>(first.data() - text_.data()) + first.size();
    const size_t second_at = static_cast<size_t>(second.data() - text_.data());
    text_ = text_.substr(0, first_end - first.size()) + std::string(second) +
            text_.substr(first_end, second_at - first_end) + std::string(first) +
            text_.substr(second_at + second.size());
  }

  // Applies edit(lines, index) for one of the lines.
  template <class Edit>
  void edit_lines(Edit edit) {
    std::vector<std::string_view> lines = split_lines(text_);
    edit(lines, below(random_, lines.size()));
    text_ = join(lines);
  }
  void delete_line() {
    edit_lines([](auto& lines, size_t i) { lines.erase(lines.begin() + static_cast<std::ptrdiff_t>(i)); });
  }
  void copy_line() {
    edit_lines([this](auto& lines, size_t i) {
      const std::string_view line = lines[i];
      lines.insert(lines.begin() + static_cast<std::ptrdiff_t>(below(random_, lines.size())), line);
    });
  }
  void swap_lines() {
    edit_lines([this](auto& lines, size_t i) { std::swap(lines[i], lines[below(random_, lines.size())]); });
  }
  void foreign_line() {
    const std::vector<std::string_view> others = split_lines(any_text());
    edit_lines([&](auto& lines, size_t i) {
      lines.insert(lines.begin() + static_cast<std::ptrdiff_t>(i), others[below(random_, others.size())]);
    });
  }

  void truncate() { text_.resize(place()); }
  void splice() {
    const std::string& other = any_text();
    text_ = text_.substr(0, place()) + other.substr(below(random_, other.size()));
  }

  std::string text_;
  const std::vector<std::string>& corpus_;
  const std::vector<std::string_view>& all_tokens_;
  Random& random_;
};

}  // namespace

std::vector<std::string> read_files(const std::vector<std::string>& paths) {
  std::vector<std::string> texts;
  for (const std::string& path : paths) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    if (!file || text.str().empty()) {
      std::fprintf(stderr, "cannot read %s\n", path.c_str());
      std::exit(2);
    }
    texts.push_back(text.str());
  }
  return texts;
}

Mutator::Mutator(std::vector<std::string> corpus) : corpus_(std::move(corpus)) {
  for (const std::string& text : corpus_) {
    for (std::string_view token : split_tokens(text)) tokens_.push_back(token);
  }
}

std::string Mutator::mutant(uint64_t number) const {
  Random random(number);
  Damage damage(corpus_[below(random, corpus_.size())], corpus_, tokens_, random);
  do {
    damage.apply();
  } while (below(random, 2) != 0);
  return damage.take();
}

}  // namespace flopcuda::fuzz
