// Philox4x32-10, the counter-based generator of Salmon et al. (2011), and an estimate of pi with it.

__device__ uint4 philox(uint4 counter, uint2 key) {
  for (int round = 0; round < 10; ++round) {
    const unsigned high0 = __umulhi(0xD2511F53u, counter.x), low0 = 0xD2511F53u * counter.x;
    const unsigned high1 = __umulhi(0xCD9E8D57u, counter.z), low1 = 0xCD9E8D57u * counter.z;
    counter = {high1 ^ counter.y ^ key.x, low1, high0 ^ counter.w ^ key.y, low0};
    key.x += 0x9E3779B9u;
    key.y += 0xBB67AE85u;
  }
  return counter;
}

extern "C" __global__ void generate(const uint4* counters, const uint2* keys, uint4* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = philox(counters[i], keys[i]);
}

// Points in the unit square that fall into the circle, two for each number drawn; coordinates are multiples of 2^-24.
extern "C" __global__ void count_in_circle(unsigned long long seed, unsigned long long* inside, int draws) {
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  const uint2 key = {static_cast<unsigned>(seed), static_cast<unsigned>(seed >> 32)};
  unsigned hits = 0;
  for (int draw = 0; draw < draws; ++draw) {
    const uint4 bits = philox({thread, static_cast<unsigned>(draw), 0, 0}, key);
    const auto in_circle = [](unsigned x, unsigned y) {
      const float fx = (x >> 8) * 0x1p-24f, fy = (y >> 8) * 0x1p-24f;
      return __fadd_rn(__fmul_rn(fx, fx), __fmul_rn(fy, fy)) < 1.0f;
    };
    hits += in_circle(bits.x, bits.y) + in_circle(bits.z, bits.w);
  }
  atomicAdd(inside, hits);
}
