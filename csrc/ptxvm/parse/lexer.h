// Cuts PTX text into tokens. Knows nothing of PTX beyond how its words, numbers and punctuation are spelled.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace flopcuda::ptxvm {

struct Token {
  enum class Kind : uint8_t {
    kWord,     // add, %r1, $L__BB0_1
    kSuffix,   // .f32, .shared::cta: without its dot in `text`
    kInteger,  // 1, 0x1F, 0b11, 017, 7U: value in `bits`
    kFloat32,  // 0f3F800000: IEEE bits
    kFloat64,  // 0d3FF0000000000000, 1.5: IEEE bits
    kString,   // "nounroll": without the quotes
    kSymbol,   // one character of punctuation
    kEnd,
  };
  Kind kind;
  bool glued;  // no blank before it
  int line;
  std::string_view text;
  uint64_t bits = 0;

  bool is(char symbol) const { return kind == Kind::kSymbol && text[0] == symbol; }
};

// Throws PtxError on a character or a number that is none of these. The tokens point into `text`.
std::vector<Token> tokenize(std::string_view text);

}  // namespace flopcuda::ptxvm
