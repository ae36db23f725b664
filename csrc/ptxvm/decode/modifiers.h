// The suffixes of an instruction (.rn.ftz.f32), read once into flags, types and modes that the rules then check.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "types.h"

namespace flopcuda::ptxvm {

// Suffixes that stand for themselves.
enum Flag : uint64_t {
  kFlagFtz = 1ull << 0,
  kFlagSat = 1ull << 1,
  kFlagApprox = 1ull << 2,
  kFlagFull = 1ull << 3,
  kFlagLo = 1ull << 4,
  kFlagHi = 1ull << 5,
  kFlagWide = 1ull << 6,
  kFlagCc = 1ull << 7,
  kFlagRelu = 1ull << 8,
  kFlagNan = 1ull << 9,
  kFlagNoFtz = 1ull << 10,
  kFlagXorSign = 1ull << 11,
  kFlagAbs = 1ull << 12,
  kFlagClamp = 1ull << 13,
  kFlagWrap = 1ull << 14,
  kFlagL = 1ull << 15,
  kFlagR = 1ull << 16,
  kFlagShiftAmount = 1ull << 17,
  kFlagToSpace = 1ull << 18,
  kFlagAnd = 1ull << 19,
  kFlagOr = 1ull << 20,
  kFlagXor = 1ull << 21,
  kFlagUni = 1ull << 22,
  kFlagSync = 1ull << 23,
  kFlagAligned = 1ull << 24,
  kFlagVolatile = 1ull << 25,
  kFlagRelaxed = 1ull << 26,
  kFlagAcquire = 1ull << 27,
  kFlagRelease = 1ull << 28,
  kFlagAcqRel = 1ull << 29,
  kFlagWeak = 1ull << 30,
  kFlagCta = 1ull << 31,    // scopes: .cta
  kFlagScope = 1ull << 32,  // .cluster .gpu
  kFlagSys = 1ull << 33,
  kFlagGl = 1ull << 34,  // of membar alone
  kFlagNc = 1ull << 35,
  kFlagPopc = 1ull << 36,
  kFlagV2 = 1ull << 37,
  kFlagV4 = 1ull << 38,
  kFlagV8 = 1ull << 39,
  kFlagSc = 1ull << 40,
  kFlagMmio = 1ull << 41,
  // Hints for caches, of no consequence here.
  kFlagCa = 1ull << 42,
  kFlagCg = 1ull << 43,
  kFlagCs = 1ull << 44,
  kFlagLu = 1ull << 45,
  kFlagCv = 1ull << 46,
  kFlagWb = 1ull << 47,
  kFlagWt = 1ull << 48,
  kFlagL1Priority = 1ull << 49,  // .L1::...
  kFlagL2Priority = 1ull << 50,  // .L2::evict_...
  kFlagL2Prefetch = 1ull << 51,  // .L2::64B and wider
};

// What a suffix is; a set of kinds has a bit for each.
enum SuffixKind : uint8_t {
  kSuffixType = 1,
  kSuffixSpace = 2,
  kSuffixRounding = 4,
  kSuffixCompare = 8,
  kSuffixFlag = 16,
  kSuffixOther = 32,
};

struct Modifiers {
  std::vector<Type> types;
  std::vector<Space> spaces;
  uint64_t flags = 0;
  std::optional<Rounding> rounding;
  bool round_to_integer = false;  // .rni .rzi .rmi .rpi
  std::optional<Compare> compare;
  std::vector<std::string_view> others;  // words of the one instruction that knows them
  std::string_view conflict;             // a suffix that repeats or contradicts an earlier one

  bool has(uint64_t flag) const { return flags & flag; }
  // Removes this word from the others; false if it is not among them.
  bool take(std::string_view word);
};

Modifiers read_modifiers(const std::vector<std::string_view>& suffixes);

SuffixKind kind_of(std::string_view suffix);
// Of a suffix of kind kSuffixFlag.
uint64_t flag_named(std::string_view suffix);

}  // namespace flopcuda::ptxvm
