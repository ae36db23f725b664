// Bitonic sort: a block's share in shared memory, and the steps that reach further in global memory.

__device__ void order(unsigned& low, unsigned& high, bool ascending) {
  const unsigned a = low, b = high;
  if ((a > b) == ascending) {
    low = b;
    high = a;
  }
}

// All the stages that fit into a block of 2 * blockDim elements (a power of two); neighbouring blocks run opposite
// ways.
extern "C" __global__ void sort_block(unsigned* keys) {
  extern __shared__ unsigned share[];
  const int size = 2 * blockDim.x, thread = threadIdx.x;
  unsigned* mine = keys + blockIdx.x * size;
  share[thread] = mine[thread];
  share[thread + blockDim.x] = mine[thread + blockDim.x];
  for (int length = 2; length <= size; length *= 2) {
    for (int stride = length / 2; stride > 0; stride /= 2) {
      __syncthreads();
      const int low = 2 * thread - (thread & (stride - 1));
      order(share[low], share[low + stride], ((blockIdx.x * size + low) & length) == 0);
    }
  }
  __syncthreads();
  mine[thread] = share[thread];
  mine[thread + blockDim.x] = share[thread + blockDim.x];
}

// One step of the stage for sequences of `length`, over the whole array.
extern "C" __global__ void sort_step(unsigned* keys, int length, int stride) {
  const int thread = blockIdx.x * blockDim.x + threadIdx.x;
  const int low = 2 * thread - (thread & (stride - 1));
  order(keys[low], keys[low + stride], (low & length) == 0);
}
