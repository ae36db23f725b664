// The dot products for AVX-512: 16-float vectors.
#include "dot_kernel.h"

namespace flopcuda::cpu {

extern constexpr DotKernels kAvx512DotKernels = make_dot_kernels<64>();

}  // namespace flopcuda::cpu
