// A number that a micro-kernel counts. All increments go through this one operator, so that a build which leaves its
// body out is the same kernels without counters: benchmarks/counting_cost.py makes one to time what counting costs. A
// packed tally holds three numbers, so that a loop with no instruction to spare counts all by one.
//
// In an unnamed namespace, as tile_kernel.h says.
#pragma once

#include <cstdint>

namespace flopcuda::cpu {
namespace {

class Tally {
 public:
  void operator+=(int64_t number) { total_ += number; }

  operator int64_t() const { return total_; }

 private:
  int64_t total_ = 0;
};

class PackedTally {
 public:
  static constexpr int64_t kMax = (int64_t{1} << 21) - 1;  // of each number

  // What a step adds.
  static constexpr int64_t pack(int64_t first, int64_t second, int64_t third) {
    return first << 42 | second << 21 | third;
  }

  void operator+=(int64_t packed) { tally_ += packed; }

  // Adds the numbers to these, and starts again.
  void empty_into(int64_t& first, int64_t& second, int64_t& third) {
    const int64_t packed = tally_;
    first += packed >> 42;
    second += packed >> 21 & kMax;
    third += packed & kMax;
    tally_ = {};
  }

 private:
  Tally tally_;
};

}  // namespace
}  // namespace flopcuda::cpu
