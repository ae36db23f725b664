// The dot products for any CPU: 4-float vectors.
#include "dot_kernel.h"

namespace flopcuda::cpu {

extern constexpr DotKernels kPortableDotKernels = make_dot_kernels<16>();

}  // namespace flopcuda::cpu
