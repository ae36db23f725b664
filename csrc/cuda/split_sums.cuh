// A reduction that several blocks share, a part each: which part is the block's, and how their sums become outputs.
//
// Bottleneck it removes: idle multiprocessors, where outputs are few and reductions long, as for one image or the
// gradient of a weight. Every block writes the sums of its part to memory and then takes a ticket of its tile. The one
// that takes the last ticket reads them all and adds them up, in the order of the parts whoever it is, so that results
// do not change from run to run. No block waits for another.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/params.h"
#include "cuda/tiles.h"
#include "cuda/triangle.cuh"

namespace flopcuda::cuda {

// The block's part, read anew wherever it is asked for: no register holds it in the main loop.
__device__ inline uint32_t part_index() {
  uint32_t part;
  asm volatile("mov.u32 %0, %%ctaid.z;" : "=r"(part));
  return part;
}

// So many products of a reduction, from one of them on.
struct ReductionPart {
  int first;
  int products;
};

// Where a part of all units begins: at part * units / parts, but for the product, which 32 bits need not hold. The
// first parts are the longer ones.
__host__ __device__ constexpr uint32_t first_unit(uint32_t units, uint32_t part, uint32_t parts) {
  const uint32_t longer = units % parts;
  return units / parts * part + (part < longer ? part : longer);
}

static_assert(first_unit(7, 0, 3) == 0 && first_unit(7, 1, 3) == 3 && first_unit(7, 2, 3) == 5);
static_assert(first_unit(4'000'000'001, 3000, 3000) == 4'000'000'001);

// One of all products: whole units of so many, but for the end of the last one. Tiles of a triangle may have fewer
// units than parts; the planner sees to it that no others do. What is behind their end is then empty.
__device__ inline ReductionPart locate_part(int reduction, int unit, uint32_t part) {
  const uint32_t products = reduction, units = (products + unit - 1) / unit;
  const int first = first_unit(units, part, gridDim.z) * unit;
  const int end = min(first_unit(units, part + 1, gridDim.z) * unit, products);
  return {first, max(end - first, 0)};
}

// The block's.
template <class Tile>
__device__ inline ReductionPart locate_part(int reduction, int unit) {
  if constexpr (Tile::IS_SPLIT) {
    return locate_part(reduction, unit, part_index());
  } else {
    return {0, reduction};
  }
}

// Whether the block multiplies the first products of its outputs: onto a bias, if there is one.
template <class Tile>
__device__ inline bool has_first_part() {
  return !Tile::IS_SPLIT || part_index() == 0;
}

// The sums of a block's threads in memory: those of neighbouring threads are neighbours, so that a warp moves whole
// sectors. One by one: vectors of them would have to be neighbours in registers, too.
template <int THREADS, class Scalar, int SIZE>
class TileSums {
 public:
  __device__ TileSums(const SplitWorkspace& workspace, uint32_t part)
      : first_(static_cast<Scalar*>(workspace.sums) +
               (static_cast<int64_t>(part) * gridDim.x + blockIdx.x) * (THREADS * SIZE) + threadIdx.x) {}

  __device__ void write(const Scalar (&sums)[SIZE]) const {
#pragma unroll
    for (int i = 0; i < SIZE; ++i) first_[i * THREADS] = sums[i];
  }

  __device__ void read(Scalar (&sums)[SIZE]) const {
#pragma unroll
    for (int i = 0; i < SIZE; ++i) sums[i] = first_[i * THREADS];
  }

  __device__ void add_to(Scalar (&sums)[SIZE]) const {
#pragma unroll
    for (int i = 0; i < SIZE; ++i) {
      sums[i] += first_[i * THREADS];
      if (i % LOADS == LOADS - 1) __syncwarp();  // the compiler takes no load across it
    }
  }

 private:
  // On their way at a time, each in a register beside the sums: those of doubles leave few.
  static constexpr int LOADS = 16;

  Scalar* first_;
};

// Whether the block is the last of its tile's. Whatever all of them have written is then there to be read. Every thread
// of the block takes part.
__device__ inline bool takes_last_ticket(const SplitWorkspace& workspace) {
  __threadfence();
  __syncthreads();
  const uint32_t last = gridDim.z - 1;
  // The last ticket makes the counter 0 again, for the next launch.
  const bool is_last = __syncthreads_or(threadIdx.x == 0 && atomicInc(workspace.tickets + blockIdx.x, last) == last);
  __threadfence();
  return is_last;
}

// Outputs to whose sums those of a later part are added. used: of all parts. count_of(used, products): what a thread
// uses of so many products. Of the two beside the seam, as of any, the first is added to nothing.
template <class CountOf>
__device__ inline uint32_t count_joined(const UsedPart& used, const ReductionPart& part, const CountOf& count_of) {
  if (part.products == 0) return 0;
  const UsedCounts seam = count_of(used.from(part.first - 1), 2);
  return static_cast<uint32_t>(seam.products - seam.outputs);
}

// Makes the sums of the block's part those of all parts; false if another block of the tile is to do that, and store
// the outputs. sums: all that a thread has, an array. count_additions(part): those of a part onto them.
template <class Tile, class Sums, class CountAdditions>
__device__ inline bool combine_parts(const SplitWorkspace& workspace, Sums& sums,
                                     const CountAdditions& count_additions) {
  if constexpr (Tile::IS_SPLIT) {
    using Scalar = std::remove_all_extents_t<Sums>;
    constexpr int SIZE = sizeof(Sums) / sizeof(Scalar);
    using Memory = TileSums<Tile::THREADS, Scalar, SIZE>;
    Scalar(&all)[SIZE] = reinterpret_cast<Scalar(&)[SIZE]>(sums);
    Memory(workspace, part_index()).write(all);
    if (!takes_last_ticket(workspace)) return false;
    Memory(workspace, 0).read(all);
#pragma unroll 1
    for (uint32_t part = 1; part < gridDim.z; ++part) {
      Memory(workspace, part).add_to(all);
      count_additions(part);
    }
  }
  return true;
}

}  // namespace flopcuda::cuda
