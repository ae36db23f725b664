// The micro-kernels for AVX2 with FMA: 8-float vectors. The 6 x 2 vector tile needs 12 accumulators, 2 column vectors
// and a broadcast: 15 of the 16 registers, and 12 chains hide the multiply-add's latency of 4 to 5 cycles at two a
// cycle.
#include "families.h"

namespace flopcuda::cpu {

extern constexpr MicroKernels kAvx2MicroKernels = make_micro_kernels<32, 6, 2>();

}  // namespace flopcuda::cpu
