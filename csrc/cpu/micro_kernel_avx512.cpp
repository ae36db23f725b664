// The micro-kernels for AVX-512: 16-float vectors. The 14 x 2 vector tile needs 28 accumulators, 2 column vectors and a
// broadcast: 31 of the 32 registers, and an update loads 16 values for 28 multiply-adds.
#include "families.h"

namespace flopcuda::cpu {

extern constexpr MicroKernels kAvx512MicroKernels = make_micro_kernels<64, 14, 2>();

}  // namespace flopcuda::cpu
