// The hot handlers, compiled for avx2. Everything with code of its own is included before the target is set, so that no
// function shared with other files is compiled for it.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "execute/handlers.h"
#include "execute/memory.h"
#include "execute/warp.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi2,popcnt,lzcnt")

namespace flopcuda::ptxvm {
namespace {
#include "execute/lanes/core.inc"
}  // namespace
}  // namespace flopcuda::ptxvm
#pragma GCC pop_options

namespace flopcuda::ptxvm {

bool register_core_avx2(HandlerTable& table) {
  if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) return false;
  register_all(table);
  return true;
}

}  // namespace flopcuda::ptxvm

#else

namespace flopcuda::ptxvm {

bool register_core_avx2(HandlerTable&) { return false; }

}  // namespace flopcuda::ptxvm

#endif
