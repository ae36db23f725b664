// bfloat16 numbers in pairs, which some CPUs multiply and add up by one instruction: two that follow each other in a
// reduction, or the last one and a zero. A pair has the size of a float, and is moved, packed and padded as one.
#pragma once

#include <cstdint>

#include "half.h"

namespace flopcuda::cpu {

constexpr int64_t pair_count(int64_t numbers) { return (numbers + 1) / 2; }

// Copies [count, 2, size] numbers to [count, size] pairs: of images or filters, those of two channels that are
// neighbours.
void pair_up(const BFloat16* numbers, int64_t count, int64_t size, float* pairs);

}  // namespace flopcuda::cpu
