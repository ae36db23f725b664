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
  kFlagScope = 1ull << 31,  // .cta .cluster .gpu .sys .gl
  kFlagNc = 1ull << 32,
  kFlagCacheHint = 1ull << 33,  // .ca .cg .cs .lu .cv .wb .wt, .L1::..., .L2::...: of no consequence here
  kFlagPopc = 1ull << 34,
  kFlagV2 = 1ull << 35,
  kFlagV4 = 1ull << 36,
  kFlagV8 = 1ull << 37,
  kFlagSc = 1ull << 38,
  kFlagMmio = 1ull << 39,
};

struct Modifiers {
  std::vector<Type> types;
  std::vector<Space> spaces;
  uint64_t flags = 0;
  std::optional<Rounding> rounding;
  bool round_to_integer = false;  // .rni .rzi .rmi .rpi
  std::optional<Compare> compare;
  std::vector<std::string_view> others;  // words of the one instruction that knows them

  bool has(uint64_t flag) const { return flags & flag; }
  // Whether this is one of `others`; it is then taken out.
  bool take(std::string_view name);
};

Modifiers read_modifiers(const std::vector<std::string_view>& suffixes);

}  // namespace flopcuda::ptxvm
