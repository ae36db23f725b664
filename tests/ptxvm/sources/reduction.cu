// Reductions: a tree in shared memory, warp shuffles, atomics, redux.sync, and one that its last block completes.

constexpr unsigned kFull = 0xffffffffu;

// partial[block] is the sum of the block's elements; blockDim is a power of two.
extern "C" __global__ void tree_sum(const float* in, float* partial, int n) {
  extern __shared__ float values[];
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  values[threadIdx.x] = i < n ? in[i] : 0.0f;
  __syncthreads();
  for (int half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) values[threadIdx.x] += values[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) partial[blockIdx.x] = values[0];
}

__device__ float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(kFull, value, offset);
  return value;
}

// Warps reduce by shuffles, and the first warp what they leave; blockDim is a multiple of 32.
extern "C" __global__ void shuffle_sum(const float* in, float* partial, int n) {
  __shared__ float of_warp[32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  float sum = 0.0f;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += in[i];
  sum = warp_sum(sum);
  if (lane == 0) of_warp[warp] = sum;
  __syncthreads();
  if (warp > 0) return;
  sum = warp_sum(lane < warps ? of_warp[lane] : 0.0f);
  if (lane == 0) partial[blockIdx.x] = sum;
}

struct Totals {
  unsigned long long sum;
  int least, most;
  unsigned all, any, odd;  // and, or, xor of the bits
  unsigned count;
};

extern "C" __global__ void atomic_totals(const int* in, Totals* totals, int n) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    const int value = in[i];
    atomicAdd(&totals->sum, static_cast<unsigned long long>(static_cast<long long>(value)));
    atomicMin(&totals->least, value);
    atomicMax(&totals->most, value);
    atomicAnd(&totals->all, static_cast<unsigned>(value));
    atomicOr(&totals->any, static_cast<unsigned>(value));
    atomicXor(&totals->odd, static_cast<unsigned>(value));
    atomicInc(&totals->count, ~0u);
  }
}

// The sum by compare-and-swap, as code for types without an atomic of their own does it.
extern "C" __global__ void swap_sum(const float* in, float* total, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  auto* word = reinterpret_cast<unsigned*>(total);
  unsigned old = *word, seen;
  do {
    seen = old;
    old = atomicCAS(word, seen, __float_as_uint(__uint_as_float(seen) + in[i]));
  } while (old != seen);
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
// One warp's totals at a time; the last warp may have lanes without an element.
extern "C" __global__ void redux_totals(const int* in, Totals* totals, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned members = __ballot_sync(kFull, i < n);
  if (i >= n) return;
  const int value = in[i];
  const unsigned bits = static_cast<unsigned>(value);
  Totals of_warp;
  of_warp.sum = static_cast<long long>(__reduce_add_sync(members, value));
  of_warp.least = __reduce_min_sync(members, value);
  of_warp.most = __reduce_max_sync(members, value);
  of_warp.all = __reduce_and_sync(members, bits);
  of_warp.any = __reduce_or_sync(members, bits);
  of_warp.odd = __reduce_xor_sync(members, bits);
  of_warp.count = __popc(members);
  if (threadIdx.x % 32 == 0) totals[i / 32] = of_warp;
}
#endif

__device__ unsigned blocks_done = 0;

// The block that finishes last adds up what all have left in partial.
extern "C" __global__ void last_block_sum(const int* in, int* partial, int* total, int n) {
  __shared__ bool is_last;
  __shared__ int sum;
  if (threadIdx.x == 0) sum = 0;
  __syncthreads();
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) atomicAdd(&sum, in[i]);
  __syncthreads();
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = sum;
    __threadfence();
    is_last = atomicInc(&blocks_done, gridDim.x - 1) == gridDim.x - 1;
    sum = 0;
  }
  __syncthreads();
  if (!is_last) return;
  for (int block = threadIdx.x; block < gridDim.x; block += blockDim.x) {
    atomicAdd(&sum, static_cast<volatile int*>(partial)[block]);
  }
  __syncthreads();
  if (threadIdx.x == 0) *total = sum;
}
