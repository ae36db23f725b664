// cp.async: copies from global to shared memory that land when they are waited for.
#pragma once

#include <cstdint>

namespace flopcuda::ptxvm {

class Warp;

// Lets copies of these lanes land: all of them, or those whose group is not among the last `still_pending` committed.
void land_copies(Warp& warp, uint32_t lanes, bool all, int64_t still_pending);

}  // namespace flopcuda::ptxvm
