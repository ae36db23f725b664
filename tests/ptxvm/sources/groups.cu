// Cooperative groups: tiles of a warp, coalesced and labeled groups, collectives, and a barrier of the whole grid.

#include <cooperative_groups.h>
#include <cooperative_groups/memcpy_async.h>
#include <cooperative_groups/reduce.h>
#include <cooperative_groups/scan.h>

namespace cg = cooperative_groups;

// out[5 i ..]: a tile's sum, its largest element, its inclusive and exclusive scan, the number of the tile.
template <int kSize>
__device__ void tile_collectives(const int* in, int* out) {
  const auto block = cg::this_thread_block();
  const auto tile = cg::tiled_partition<kSize>(block);
  const int i = block.thread_rank(), value = in[i];
  out[5 * i] = cg::reduce(tile, value, cg::plus<int>());
  out[5 * i + 1] = cg::reduce(tile, value, cg::greater<int>());
  out[5 * i + 2] = cg::inclusive_scan(tile, value, cg::plus<int>());
  out[5 * i + 3] = cg::exclusive_scan(tile, value, cg::plus<int>());
  out[5 * i + 4] = tile.meta_group_rank() * 1000 + tile.meta_group_size();
}

extern "C" __global__ void tiles_of_4(const int* in, int* out) { tile_collectives<4>(in, out); }
extern "C" __global__ void tiles_of_32(const int* in, int* out) { tile_collectives<32>(in, out); }

// A tree by hand over tiles whose size is known at run time; out[i] is the sum of i's tile.
extern "C" __global__ void dynamic_tiles(const int* in, int* out, int size) {
  const auto tile = cg::tiled_partition(cg::this_thread_block(), size);
  __shared__ int sums[1024];
  const int first = threadIdx.x - tile.thread_rank();
  sums[threadIdx.x] = in[threadIdx.x];
  for (int half = tile.size() / 2; half > 0; half /= 2) {
    tile.sync();
    if (tile.thread_rank() < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  tile.sync();
  out[threadIdx.x] = sums[first];
}

// The lanes that took one branch count themselves with one atomic: out[kind] is the number of elements of a kind,
// slot[i] a place of its own for each.
extern "C" __global__ void coalesced_counters(const int* in, int* out, int* slot, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const auto take = [&](int kind) {
    const cg::coalesced_group active = cg::coalesced_threads();
    int first = 0;
    if (active.thread_rank() == 0) first = atomicAdd(&out[kind], active.size());
    slot[i] = active.shfl(first, 0) + active.thread_rank();
  };
  if (in[i] % 3 == 0) {
    take(0);
  } else if (in[i] % 3 == 1) {
    take(1);
  } else {
    take(2);
  }
}

// out[i] is the sum of the elements of i's warp that have i's label, and yes[i] of those of the same parity.
extern "C" __global__ void partitions(const int* in, const int* label, int* out, int* yes) {
  const int i = threadIdx.x;
  const auto warp = cg::tiled_partition<32>(cg::this_thread_block());
  const auto same = cg::labeled_partition(warp, label[i]);
  out[i] = cg::reduce(same, in[i], cg::plus<int>());
  const auto parity = cg::binary_partition(warp, in[i] % 2 != 0);
  yes[i] = cg::reduce(parity, in[i], cg::plus<int>());
}

// Copies through shared memory in pieces of the block's own size.
extern "C" __global__ void staged_copy(const int* in, int* out, int n) {
  __shared__ int stage[256];
  const auto block = cg::this_thread_block();
  for (int first = 0; first < n; first += 256) {
    const int count = min(256, n - first);
    cg::memcpy_async(block, stage, in + first, sizeof(int) * count);
    cg::wait(block);
    for (int i = threadIdx.x; i < count; i += blockDim.x) out[first + i] = stage[count - 1 - i];
    block.sync();
  }
}

// Each step every element becomes the sum of itself and its right neighbour, around the whole grid.
extern "C" __global__ void grid_steps(int* a, int* b, int steps) {
  const cg::grid_group grid = cg::this_grid();
  const int i = grid.thread_rank(), next = (i + 1) % grid.size();
  for (int step = 0; step < steps; ++step) {
    b[i] = a[i] + a[next];
    grid.sync();
    int* const spare = a;
    a = b;
    b = spare;
  }
}

// Groups of several warps exchange through shared memory.
extern "C" __global__ void tiles_of_64(const int* in, int* out) {
  __shared__ cg::block_tile_memory<256> scratch;
  const auto block = cg::this_thread_block(scratch);
  const auto tile = cg::tiled_partition<64>(block);
  out[threadIdx.x] = cg::reduce(tile, in[threadIdx.x], cg::plus<int>());
}
