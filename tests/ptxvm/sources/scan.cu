// Prefix sums: Blelloch's in one block, shuffles in one warp, and a single pass over many blocks with look-back.

constexpr unsigned kFull = 0xffffffffu;

// Exclusive, two elements to a thread, blockDim a power of two: up the tree, then down.
extern "C" __global__ void blelloch_scan(const int* in, int* out, int n) {
  extern __shared__ int tree[];
  const int thread = threadIdx.x, size = 2 * blockDim.x;
  for (int i = thread; i < size; i += blockDim.x) tree[i] = i < n ? in[i] : 0;
  int offset = 1;
  for (int nodes = size / 2; nodes > 0; nodes /= 2, offset *= 2) {
    __syncthreads();
    if (thread < nodes) tree[offset * (2 * thread + 2) - 1] += tree[offset * (2 * thread + 1) - 1];
  }
  if (thread == 0) tree[size - 1] = 0;
  for (int nodes = 1; nodes < size; nodes *= 2) {
    offset /= 2;
    __syncthreads();
    if (thread < nodes) {
      const int left = offset * (2 * thread + 1) - 1, right = offset * (2 * thread + 2) - 1;
      const int sum = tree[left], above = tree[right];
      tree[left] = above;
      tree[right] = above + sum;
    }
  }
  __syncthreads();
  for (int i = thread; i < size; i += blockDim.x) {
    if (i < n) out[i] = tree[i];
  }
}

__device__ unsigned inclusive_warp_scan(unsigned value) {
  const int lane = threadIdx.x % 32;
  for (int offset = 1; offset < 32; offset *= 2) {
    const unsigned before = __shfl_up_sync(kFull, value, offset);
    if (lane >= offset) value += before;
  }
  return value;
}

// Each warp for itself.
extern "C" __global__ void warp_scan(const unsigned* in, unsigned* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned sum = inclusive_warp_scan(i < n ? in[i] : 0);
  if (i < n) out[i] = sum;
}

// ---- one pass: a block adds up the tiles before its own as far as they are known, and waits for those that are not

enum State : unsigned { kNothing, kAggregate, kPrefix };

struct Tiles {
  unsigned* next;       // the tile that the next block takes; blocks need not start in order
  unsigned* state;      // what is known of each tile
  unsigned* aggregate;  // its own sum
  unsigned* prefix;     // the sum up to its end
};

struct VolatileState {
  static __device__ void publish(unsigned* place, unsigned state) {
    __threadfence();
    *static_cast<volatile unsigned*>(place) = state;
  }
  static __device__ unsigned read(unsigned* place) {
    const unsigned state = *static_cast<volatile unsigned*>(place);
    __threadfence();
    return state;
  }
};

struct OrderedState {
  static __device__ void publish(unsigned* place, unsigned state) {
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(place)), "r"(state) : "memory");
  }
  static __device__ unsigned read(unsigned* place) {
    unsigned state;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(state) : "l"(__cvta_generic_to_global(place)) : "memory");
    return state;
  }
};

// The sum of all tiles before this one, by its first warp: 32 tiles at a time.
template <class Published>
__device__ unsigned look_back(const Tiles& tiles, int tile) {
  const int lane = threadIdx.x;
  unsigned sum = 0;
  for (int nearest = tile - 1;; nearest -= 32) {
    const int other = nearest - lane;
    unsigned state = kPrefix, value = 0;
    if (other >= 0) {
      do state = Published::read(&tiles.state[other]);
      while (state == kNothing);
      const unsigned* known = state == kPrefix ? tiles.prefix : tiles.aggregate;
      value = *static_cast<const volatile unsigned*>(&known[other]);
    }
    const unsigned complete = __ballot_sync(kFull, state == kPrefix);
    if (complete && lane >= __ffs(complete)) value = 0;
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(kFull, value, offset);
    sum += value;
    if (complete) return sum;
  }
}

template <class Published>
__device__ void single_pass_scan(const unsigned* in, unsigned* out, const Tiles& tiles, int n) {
  __shared__ unsigned tile, before_tile, sum_of_warp[32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  if (threadIdx.x == 0) tile = atomicAdd(tiles.next, 1);
  __syncthreads();
  const int i = tile * blockDim.x + threadIdx.x;
  unsigned sum = inclusive_warp_scan(i < n ? in[i] : 0);
  if (lane == 31) sum_of_warp[warp] = sum;
  __syncthreads();
  if (warp == 0) {
    const unsigned of_warps = inclusive_warp_scan(lane < warps ? sum_of_warp[lane] : 0);
    const unsigned aggregate = __shfl_sync(kFull, of_warps, warps - 1);
    __syncwarp();
    sum_of_warp[lane] = of_warps;
    if (lane == 0) {
      tiles.aggregate[tile] = aggregate;
      Published::publish(&tiles.state[tile], kAggregate);
    }
    const unsigned before = look_back<Published>(tiles, tile);
    if (lane == 0) {
      tiles.prefix[tile] = before + aggregate;
      Published::publish(&tiles.state[tile], kPrefix);
      before_tile = before;
    }
  }
  __syncthreads();
  sum += before_tile + (warp > 0 ? sum_of_warp[warp - 1] : 0);
  if (i < n) out[i] = sum;
}

extern "C" __global__ void scan_by_volatile_flags(const unsigned* in, unsigned* out, Tiles tiles, int n) {
  single_pass_scan<VolatileState>(in, out, tiles, n);
}

extern "C" __global__ void scan_by_release_acquire(const unsigned* in, unsigned* out, Tiles tiles, int n) {
  single_pass_scan<OrderedState>(in, out, tiles, n);
}
