// The dot products for AVX2 with FMA and F16C: 8-float vectors.
#include "dot_kernel.h"

namespace flopcuda::cpu {

extern constexpr DotKernels kAvx2DotKernels = make_dot_kernels<32>();

}  // namespace flopcuda::cpu
