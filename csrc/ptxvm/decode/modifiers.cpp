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
    {"cta", kFlagCta},
    {"cluster", kFlagScope},
    {"gpu", kFlagScope},
    {"sys", kFlagSys},
    {"gl", kFlagGl},
    {"nc", kFlagNc},
    {"ca", kFlagCa},
    {"cg", kFlagCg},
    {"cs", kFlagCs},
    {"lu", kFlagLu},
    {"cv", kFlagCv},
    {"wb", kFlagWb},
    {"wt", kFlagWt},
    {"popc", kFlagPopc},
    {"v2", kFlagV2},
    {"v4", kFlagV4},
    {"v8", kFlagV8},
    {"sc", kFlagSc},
    {"mmio", kFlagMmio},
    {"L1::evict_normal", kFlagL1Priority},
    {"L1::evict_unchanged", kFlagL1Priority},
    {"L1::evict_first", kFlagL1Priority},
    {"L1::evict_last", kFlagL1Priority},
    {"L1::no_allocate", kFlagL1Priority},
    {"L2::evict_normal", kFlagL2Priority},
    {"L2::evict_first", kFlagL2Priority},
    {"L2::evict_last", kFlagL2Priority},
    {"L2::64B", kFlagL2Prefetch},
    {"L2::128B", kFlagL2Prefetch},
    {"L2::256B", kFlagL2Prefetch},
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

// An instruction has at most one of each group.
constexpr uint64_t kExclusive[] = {
    kFlagV2 | kFlagV4 | kFlagV8,
    kFlagLo | kFlagHi | kFlagWide,
    kFlagApprox | kFlagFull,
    kFlagClamp | kFlagWrap,
    kFlagL | kFlagR,
    kFlagAnd | kFlagOr | kFlagXor,
    kFlagWeak | kFlagVolatile | kFlagRelaxed | kFlagAcquire | kFlagRelease | kFlagAcqRel | kFlagSc,
    kFlagCta | kFlagScope | kFlagSys | kFlagGl,
    kFlagCa | kFlagCg | kFlagCs | kFlagLu | kFlagCv | kFlagWb | kFlagWt,
};

template <class Entry, size_t count>
const Entry* find_named(const Entry (&table)[count], std::string_view name) {
  for (const Entry& entry : table) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

bool contradicts(uint64_t flag, uint64_t earlier) {
  if (flag & earlier) return true;
  for (uint64_t group : kExclusive) {
    if ((flag & group) && (earlier & group)) return true;
  }
  return false;
}

// False for a suffix that does not go with the earlier ones.
bool read_one(std::string_view name, Modifiers& out) {
  if (const Type type = type_named(name); type != Type::kNone) {
    out.types.push_back(type);
  } else if (const NamedSpace* space = find_named(kSpaces, name)) {
    out.spaces.push_back(space->space);
  } else if (const NamedFlag* flag = find_named(kFlags, name)) {
    if (contradicts(flag->flag, out.flags)) return false;
    out.flags |= flag->flag;
  } else if (const NamedRounding* rounding = find_named(kRoundings, name)) {
    if (out.rounding) return false;
    out.rounding = rounding->rounding;
    out.round_to_integer = rounding->to_integer;
  } else if (const NamedCompare* compare = find_named(kCompares, name)) {
    if (out.compare) return false;
    out.compare = compare->compare;
  } else {
    out.others.push_back(name);
  }
  return true;
}

}  // namespace

bool Modifiers::take(std::string_view word) {
  const auto found = std::find(others.begin(), others.end(), word);
  if (found == others.end()) return false;
  others.erase(found);
  return true;
}

Modifiers read_modifiers(const std::vector<std::string_view>& suffixes) {
  Modifiers result;
  for (std::string_view name : suffixes) {
    if (!read_one(name, result) && result.conflict.empty()) result.conflict = name;
  }
  return result;
}

SuffixKind kind_of(std::string_view suffix) {
  if (type_named(suffix) != Type::kNone) return kSuffixType;
  if (find_named(kSpaces, suffix)) return kSuffixSpace;
  if (find_named(kFlags, suffix)) return kSuffixFlag;
  if (find_named(kRoundings, suffix)) return kSuffixRounding;
  return find_named(kCompares, suffix) ? kSuffixCompare : kSuffixOther;
}

uint64_t flag_named(std::string_view suffix) { return find_named(kFlags, suffix)->flag; }

}  // namespace flopcuda::ptxvm
