// The suffixes of an instruction, by table.
#include "decode/modifiers.h"

#include <algorithm>

namespace flopcuda::ptxvm {
namespace {

struct NamedFlag {
  std::string_view name;
  uint64_t flag;
};

constexpr NamedFlag kFlags[] = {
    {"ftz", kFlagFtz},
    {"sat", kFlagSat},
    {"approx", kFlagApprox},
    {"full", kFlagFull},
    {"lo", kFlagLo},
    {"hi", kFlagHi},
    {"wide", kFlagWide},
    {"cc", kFlagCc},
    {"relu", kFlagRelu},
    {"NaN", kFlagNan},
    {"noftz", kFlagNoFtz},
    {"xorsign", kFlagXorSign},
    {"abs", kFlagAbs},
    {"clamp", kFlagClamp},
    {"wrap", kFlagWrap},
    {"l", kFlagL},
    {"r", kFlagR},
    {"shiftamt", kFlagShiftAmount},
    {"to", kFlagToSpace},
    {"and", kFlagAnd},
    {"or", kFlagOr},
    {"xor", kFlagXor},
    {"uni", kFlagUni},
    {"sync", kFlagSync},
    {"aligned", kFlagAligned},
    {"volatile", kFlagVolatile},
    {"relaxed", kFlagRelaxed},
    {"acquire", kFlagAcquire},
    {"release", kFlagRelease},
    {"acq_rel", kFlagAcqRel},
    {"weak", kFlagWeak},
    {"cta", kFlagScope},
    {"cluster", kFlagScope},
    {"gpu", kFlagScope},
    {"sys", kFlagScope},
    {"gl", kFlagScope},
    {"nc", kFlagNc},
    {"ca", kFlagCacheHint},
    {"cg", kFlagCacheHint},
    {"cs", kFlagCacheHint},
    {"lu", kFlagCacheHint},
    {"cv", kFlagCacheHint},
    {"wb", kFlagCacheHint},
    {"wt", kFlagCacheHint},
    {"popc", kFlagPopc},
    {"v2", kFlagV2},
    {"v4", kFlagV4},
    {"v8", kFlagV8},
    {"sc", kFlagSc},
    {"mmio", kFlagMmio},
    {"L1::evict_normal", kFlagCacheHint},
    {"L1::evict_unchanged", kFlagCacheHint},
    {"L1::evict_first", kFlagCacheHint},
    {"L1::evict_last", kFlagCacheHint},
    {"L1::no_allocate", kFlagCacheHint},
    {"L2::evict_normal", kFlagCacheHint},
    {"L2::evict_first", kFlagCacheHint},
    {"L2::evict_last", kFlagCacheHint},
    {"L2::64B", kFlagCacheHint},
    {"L2::128B", kFlagCacheHint},
    {"L2::256B", kFlagCacheHint},
};

struct NamedRounding {
  std::string_view name;
  Rounding rounding;
  bool to_integer;
};

constexpr NamedRounding kRoundings[] = {
    {"rn", Rounding::kNearest, false}, {"rz", Rounding::kZero, false},  {"rm", Rounding::kDown, false},
    {"rp", Rounding::kUp, false},      {"rna", Rounding::kAway, false}, {"rni", Rounding::kNearest, true},
    {"rzi", Rounding::kZero, true},    {"rmi", Rounding::kDown, true},  {"rpi", Rounding::kUp, true},
};

struct NamedCompare {
  std::string_view name;
  Compare compare;
};

// lo, ls, hi, hs are unsigned spellings; lo and hi are read as flags first and turned into comparisons by set and setp.
constexpr NamedCompare kCompares[] = {
    {"eq", Compare::kEq},   {"ne", Compare::kNe},   {"lt", Compare::kLt},   {"le", Compare::kLe},
    {"gt", Compare::kGt},   {"ge", Compare::kGe},   {"equ", Compare::kEqu}, {"neu", Compare::kNeu},
    {"ltu", Compare::kLtu}, {"leu", Compare::kLeu}, {"gtu", Compare::kGtu}, {"geu", Compare::kGeu},
    {"num", Compare::kNum}, {"nan", Compare::kNan}, {"ls", Compare::kLe},   {"hs", Compare::kGe},
};

struct NamedSpace {
  std::string_view name;
  Space space;
};

constexpr NamedSpace kSpaces[] = {
    {"global", Space::kGlobal},      {"shared", Space::kShared},     {"shared::cta", Space::kShared},
    {"local", Space::kLocal},        {"const", Space::kConst},       {"param", Space::kParam},
    {"param::entry", Space::kParam}, {"param::func", Space::kParam},
};

bool read_one(std::string_view name, Modifiers& out) {
  if (const Type type = type_named(name); type != Type::kNone) {
    out.types.push_back(type);
    return true;
  }
  for (const NamedSpace& entry : kSpaces) {
    if (entry.name == name) return out.spaces.push_back(entry.space), true;
  }
  for (const NamedFlag& entry : kFlags) {
    if (entry.name == name) return out.flags |= entry.flag, true;
  }
  for (const NamedRounding& entry : kRoundings) {
    if (entry.name != name || out.rounding) continue;
    out.rounding = entry.rounding;
    out.round_to_integer = entry.to_integer;
    return true;
  }
  for (const NamedCompare& entry : kCompares) {
    if (entry.name == name && !out.compare) return out.compare = entry.compare, true;
  }
  return false;
}

}  // namespace

bool Modifiers::take(std::string_view name) {
  const auto found = std::find(others.begin(), others.end(), name);
  if (found == others.end()) return false;
  others.erase(found);
  return true;
}

Modifiers read_modifiers(const std::vector<std::string_view>& suffixes) {
  Modifiers result;
  for (std::string_view name : suffixes) {
    if (!read_one(name, result)) result.others.push_back(name);
  }
  return result;
}

}  // namespace flopcuda::ptxvm
