// See pairs.h.
#include "pairs.h"

#include <cstring>

#include "partition.h"

namespace flopcuda::cpu {
namespace {

constexpr int64_t kPartSize = 4096;  // of a channel; threads share parts

// By vectors of its own, since a loop of which the compiler makes some first asks whether they overlap: filters have
// few numbers in a channel.
void pair_up_part(const BFloat16* first, const BFloat16* second, int64_t size, float* pairs) {
  typedef uint16_t Eight __attribute__((vector_size(16)));
  int64_t i = 0;
  for (; i + 8 <= size; i += 8) {
    Eight a, b;
    std::memcpy(&a, first + i, sizeof(a));
    std::memcpy(&b, second + i, sizeof(b));
    const Eight low = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    const Eight high = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
    std::memcpy(pairs + i, &low, sizeof(low));
    std::memcpy(pairs + i + 4, &high, sizeof(high));
  }
  for (; i < size; ++i) {
    const uint16_t pair[] = {first[i].bits, second[i].bits};
    std::memcpy(pairs + i, pair, sizeof(pair));
  }
}

}  // namespace

void pair_up(const BFloat16* numbers, int64_t count, int64_t size, float* pairs) {
  const int64_t parts = ceil_div(size, kPartSize);
#pragma omp parallel for
  for (int64_t task = 0; task < count * parts; ++task) {
    const int64_t index = parts == 1 ? task : task / parts, begin = (task - index * parts) * kPartSize;
    const BFloat16* const first = numbers + 2 * index * size + begin;
    const int64_t length = size - begin < kPartSize ? size - begin : kPartSize;
    pair_up_part(first, first + size, length, pairs + index * size + begin);
  }
}

}  // namespace flopcuda::cpu
