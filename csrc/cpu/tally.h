// A number that a micro-kernel counts. All increments go through this one operator, so that a build which leaves its
// body out is the same kernels without counters: benchmarks/counting_cost.py makes one to time what counting costs.
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

}  // namespace
}  // namespace flopcuda::cpu
