// Histograms of bytes: one in shared memory for each block or for each warp, merged by atomics in global memory.

constexpr int kBins = 256;

__device__ void count(const unsigned char* in, unsigned* bins, int n) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&bins[in[i]], 1);
}

extern "C" __global__ void block_histogram(const unsigned char* in, unsigned* out, int n) {
  __shared__ unsigned bins[kBins];
  for (int bin = threadIdx.x; bin < kBins; bin += blockDim.x) bins[bin] = 0;
  __syncthreads();
  count(in, bins, n);
  __syncthreads();
  for (int bin = threadIdx.x; bin < kBins; bin += blockDim.x) {
    if (bins[bin] > 0) atomicAdd(&out[bin], bins[bin]);
  }
}

// Dynamic shared memory holds blockDim / 32 histograms; lanes of a warp with one value elect one of them to count.
extern "C" __global__ void warp_histogram(const unsigned char* in, unsigned* out, int n) {
  extern __shared__ unsigned histograms[];
  const int warps = blockDim.x / 32;
  for (int bin = threadIdx.x; bin < warps * kBins; bin += blockDim.x) histograms[bin] = 0;
  __syncthreads();
  unsigned* bins = histograms + threadIdx.x / 32 * kBins;
  for (int first = blockIdx.x * blockDim.x; first < n; first += gridDim.x * blockDim.x) {
    const int i = first + threadIdx.x;
    const unsigned present = __ballot_sync(0xffffffffu, i < n);
    if (i < n) {
      const unsigned same = __match_any_sync(present, in[i]);
      if (threadIdx.x % 32 == __ffs(same) - 1) bins[in[i]] += __popc(same);
    }
    __syncwarp();
  }
  __syncthreads();
  for (int bin = threadIdx.x; bin < kBins; bin += blockDim.x) {
    unsigned sum = 0;
    for (int warp = 0; warp < warps; ++warp) sum += histograms[warp * kBins + bin];
    atomicAdd(&out[bin], sum);
  }
}
