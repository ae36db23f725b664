// The micro-kernels for any CPU: 4-float vectors, which the compiler maps to SSE2, NEON or plain registers. The 4 x 2
// vector tile needs 8 accumulators, 2 column vectors and a broadcast: 11 of SSE2's 16 registers.
#include "families.h"

namespace flopcuda::cpu {

extern constexpr MicroKernels kPortableMicroKernels = make_micro_kernels<16, 4, 2>();

}  // namespace flopcuda::cpu
