// The functions of the runtime that are not there: each remembers that it was called. CUDA's own declarations, which
// these do not match, must not be seen here.
#include "vcuda.h"

namespace flopcuda::vcuda {
int fail_unsupported(const char* name);  // in errors.cpp
}

#define VCUDA_REAL(name, concern, note)
#define VCUDA_STUB(name, concern) \
  extern "C" __attribute__((visibility("default"))) int name() { return flopcuda::vcuda::fail_unsupported(#name); }
#include "runtime_symbols.inc"
