// The micro-kernels of pairs for CPUs with AVX-512 that multiply bfloat16: one instruction makes and adds both products
// of 16 lanes. It takes subnormal numbers for zeros, as torch's own kernels do there. The tiles are those of float.
#include <immintrin.h>

#include "pair_kernel.h"

namespace flopcuda::cpu {
namespace {

struct DotProducts : Pairs<64> {
  static inline void multiply_add(Vector& sums, const Vector& a, const Vector& b) {
    sums = _mm512_dpbf16_ps(sums, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
};

}  // namespace

extern constexpr PairTiles kAvx512PairTiles = make_pair_tiles<DotProducts, 14, 2>();

}  // namespace flopcuda::cpu
