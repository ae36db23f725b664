// The hot handlers for any processor.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "execute/handlers.h"
#include "execute/memory.h"
#include "execute/warp.h"

namespace flopcuda::ptxvm {
namespace {
#include "execute/lanes/core.inc"
}  // namespace

void register_core_portable(HandlerTable& table) { register_all(table); }

}  // namespace flopcuda::ptxvm
