// The micro-kernels of pairs for any CPU, with the tiles of micro_kernel_portable.cpp. Widening beforehand is faster;
// they show what the others count.
#include "pair_kernel.h"

namespace flopcuda::cpu {

extern constexpr PairTiles kPortablePairTiles = make_pair_tiles<Pairs<16>, 4, 2>();

}  // namespace flopcuda::cpu
