// The hot handlers, compiled for avx512. Everything with code of its own is included before the target is set, so that
// no function shared with other files is compiled for it.
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
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,fma,bmi2,popcnt,lzcnt,prefer-vector-width=512")

namespace flopcuda::ptxvm {
namespace {
#include "execute/lanes/core.inc"
}  // namespace
}  // namespace flopcuda::ptxvm
#pragma GCC pop_options

namespace flopcuda::ptxvm {

bool register_core_avx512(HandlerTable& table) {
  if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd")))
    return false;
  register_all(table);
  return true;
}

}  // namespace flopcuda::ptxvm

#else

namespace flopcuda::ptxvm {

bool register_core_avx512(HandlerTable&) { return false; }

}  // namespace flopcuda::ptxvm

#endif
