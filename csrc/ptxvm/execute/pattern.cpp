// How the lanes of one memory instruction lie relative to each other.
#include "execute/pattern.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace flopcuda::ptxvm {
namespace {

constexpr int kBanks = 32;
constexpr int kBankBytes = 4;
constexpr uint64_t kWidest = uint64_t{1} << 60;  // bytes between lanes: no allocation is so large
constexpr int kSectorBytes = 32;

uint64_t hash_of(const Pattern& pattern) {
  uint64_t hash = pattern.mask * 0x9e3779b97f4a7c15ull + static_cast<uint64_t>(pattern.bytes);
  for (int64_t value : pattern.relative)
    hash = (hash ^ static_cast<uint64_t>(value)) * 0xff51afd7ed558ccdull + (hash >> 29);
  return hash;
}

// Wavefronts for lanes [begin, end): the most different words that any one bank has to deliver.
int wavefronts_of(const Pattern& pattern, int begin, int end) {
  std::vector<int64_t> words;
  for (int lane = begin; lane < end; ++lane) {
    if (!(pattern.mask >> lane & 1)) continue;
    const int64_t first = pattern.relative[lane] >= 0 ? pattern.relative[lane] / kBankBytes
                                                      : -((-pattern.relative[lane] + kBankBytes - 1) / kBankBytes);
    for (int word = 0; word < std::max(1, pattern.bytes / kBankBytes); ++word) words.push_back(first + word);
  }
  std::sort(words.begin(), words.end());
  words.erase(std::unique(words.begin(), words.end()), words.end());
  int load[kBanks] = {};
  int most = 0;
  for (int64_t word : words) most = std::max(most, ++load[word & (kBanks - 1)]);
  return most;
}

// A warp's access of 8 bytes a lane goes in halves, of 16 in quarters.
void count_wavefronts(Pattern& pattern) {
  const int parts = pattern.bytes >= 32 ? 8 : pattern.bytes == 16 ? 4 : pattern.bytes == 8 ? 2 : 1;
  for (int part = 0; part < parts; ++part) {
    const int begin = part * kLanes / parts, end = (part + 1) * kLanes / parts;
    const int needed = wavefronts_of(pattern, begin, end);
    pattern.wavefronts = static_cast<uint16_t>(pattern.wavefronts + needed);
    pattern.ideal_wavefronts = static_cast<uint16_t>(pattern.ideal_wavefronts + (needed > 0));
  }
}

// Bytes that several lanes access count once.
void count_ideal_sectors(Pattern& pattern) {
  std::vector<int64_t> starts;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (pattern.mask >> lane & 1) starts.push_back(pattern.relative[lane]);
  }
  std::sort(starts.begin(), starts.end());
  int64_t bytes = pattern.bytes;
  for (size_t i = 1; i < starts.size(); ++i) bytes += std::min<int64_t>(pattern.bytes, starts[i] - starts[i - 1]);
  pattern.overlaps_itself = bytes < pattern.bytes * static_cast<int64_t>(starts.size());
  pattern.ideal_sectors = static_cast<uint16_t>((bytes + kSectorBytes - 1) / kSectorBytes);
}

void describe(Pattern& pattern) {
  bool contiguous = pattern.mask == kAllLanes, uniform = contiguous;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(pattern.mask >> lane & 1)) continue;
    pattern.lowest = std::min(pattern.lowest, pattern.relative[lane]);
    pattern.highest = std::max(pattern.highest, pattern.relative[lane]);
    pattern.low_bits |= static_cast<uint64_t>(pattern.relative[lane]);
    contiguous &= pattern.relative[lane] == int64_t{lane} * pattern.bytes;
    uniform &= pattern.relative[lane] == 0;
  }
  if (contiguous) pattern.shape = Pattern::Shape::kContiguous;
  if (uniform) pattern.shape = Pattern::Shape::kUniform;
  if (static_cast<uint64_t>(pattern.highest) - static_cast<uint64_t>(pattern.lowest) > kWidest) return;
  count_wavefronts(pattern);
  count_ideal_sectors(pattern);
}

}  // namespace

int16_t Pattern::count_sectors(uint64_t base) const {
  std::vector<int64_t> touched;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1)) continue;
    const int64_t begin = relative[lane] + static_cast<int64_t>(base);
    for (int64_t sector = begin >> 5; sector <= (begin + bytes - 1) >> 5; ++sector) touched.push_back(sector);
  }
  std::sort(touched.begin(), touched.end());
  return static_cast<int16_t>(std::unique(touched.begin(), touched.end()) - touched.begin());
}

const Pattern* PatternTable::find(const int64_t* addresses, uint32_t mask, int bytes) {
  auto candidate = std::make_unique<Pattern>();
  candidate->mask = mask;
  candidate->bytes = bytes;
  candidate->sectors.fill(-1);
  const int64_t first = addresses[__builtin_ctz(mask)];
  for (int lane = 0; lane < kLanes; ++lane) {
    const uint64_t difference = static_cast<uint64_t>(addresses[lane]) - static_cast<uint64_t>(first);
    candidate->relative[lane] = mask >> lane & 1 ? static_cast<int64_t>(difference) : 0;
  }
  const uint64_t hash = hash_of(*candidate);
  const auto range = by_hash_.equal_range(hash);
  for (auto entry = range.first; entry != range.second; ++entry) {
    const Pattern& known = *entry->second;
    if (known.mask == mask && known.bytes == bytes &&
        std::memcmp(known.relative, candidate->relative, sizeof known.relative) == 0) {
      return &known;
    }
  }
  describe(*candidate);
  by_hash_.emplace(hash, candidate.get());
  all_.push_back(std::move(candidate));
  return all_.back().get();
}

std::vector<std::unique_ptr<Pattern>> PatternTable::take() {
  by_hash_.clear();
  return std::exchange(all_, {});
}

}  // namespace flopcuda::ptxvm
