// How the lanes of one memory instruction lie relative to each other.
//
// In a loop the base address moves but the pattern stays, so what has to be known of it (extent, alignment, sectors,
// bank conflicts) is worked out once and then found by comparing 32 differences.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "types.h"

namespace flopcuda::ptxvm {

struct Pattern {
  enum class Shape : uint8_t { kScattered, kContiguous, kUniform };

  alignas(64) int64_t relative[kLanes];  // to the first active lane; 0 for inactive lanes
  uint32_t mask = 0;
  int bytes = 0;  // of one lane, all elements of a vector
  int64_t lowest = 0, highest = 0;
  uint64_t low_bits = 0;            // or of all differences
  bool overlaps_itself = false;     // two lanes touch one byte
  Shape shape = Shape::kScattered;  // kContiguous and kUniform only with all lanes active
  uint16_t wavefronts = 0;          // of a shared access
  uint16_t ideal_wavefronts = 0;    // without bank conflicts
  uint16_t ideal_sectors = 0;       // of a global access, if its bytes lay side by side from a sector's start
  mutable std::array<int16_t, kLanes> sectors;  // by the base's position in its sector; -1: not yet counted

  int sectors_at(uint64_t first_address) const {
    int16_t& known = sectors[first_address & 31];
    if (known < 0) known = count_sectors(first_address & 31);
    return known;
  }

 private:
  int16_t count_sectors(uint64_t base) const;
};

// Patterns seen by one worker. Pointers stay valid until take().
class PatternTable {
 public:
  static constexpr size_t kCapacity = 4096;

  const Pattern* find(const int64_t* addresses, uint32_t mask, int bytes);
  bool is_full() const { return all_.size() >= kCapacity; }
  // Empties the table; pointers stay valid as long as the result.
  std::vector<std::unique_ptr<Pattern>> take();

 private:
  std::vector<std::unique_ptr<Pattern>> all_;
  std::unordered_multimap<uint64_t, const Pattern*> by_hash_;
};

}  // namespace flopcuda::ptxvm
