// A number that a micro-kernel counts. All increments go through this one operator, so that a build which leaves its
// body out is the same kernels without counters: benchmarks/counting_cost.py makes one to time what counting costs. A
// packed tally holds three numbers that grow together, so that a loop with no instruction to spare counts all by one.
//
// In an unnamed namespace, as tile_kernel.h says.
#pragma once

#include <cstdint>

#include "../common/counters.h"

namespace flopcuda::cpu {
namespace {

class Tally {
 public:
  void operator+=(int64_t number) { total_ += number; }

  operator int64_t() const { return total_; }

 private:
  int64_t total_ = 0;
};

// Products, additions and lanes.
class PackedTally {
 public:
  static constexpr int64_t kMax = (int64_t{1} << 21) - 1;  // of each number

  // What a step adds.
  static constexpr int64_t pack(int64_t mul, int64_t add, int64_t lane) { return mul << 42 | add << 21 | lane; }

  void operator+=(int64_t packed) { tally_ += packed; }

  // Moves the numbers to the counters.
  void empty_into(Counters& counters) {
    const int64_t packed = tally_;
    counters.mul += packed >> 42;
    counters.add += packed >> 21 & kMax;
    counters.lane += packed & kMax;
    tally_ = {};
  }

 private:
  Tally tally_;
};

}  // namespace
}  // namespace flopcuda::cpu
