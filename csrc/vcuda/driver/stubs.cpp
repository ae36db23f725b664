// The functions of the driver that are not there: each remembers that it was called. CUDA's own declarations, which
// these do not match, must not be seen here.
#include "vcuda.h"

#define VCUDA_REAL(name, concern, note)
#define VCUDA_STUB(name, concern) \
  extern "C" __attribute__((visibility("default"))) int name() { return flopcuda_vcuda_remember_unsupported(#name); }
#include "driver_symbols.inc"
