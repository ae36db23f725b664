// Arithmetic of cuda_fp16.h and cuda_bf16.h in pairs. Result r of element i is out[r * n + i].

#include <cuda_bf16.h>
#include <cuda_fp16.h>

// Calls visit(r, result) for what both headers define under the same names.
template <class Pair, class Visit>
__device__ void exact_results(Pair a, Pair b, Pair c, Visit visit) {
  const Pair results[] = {__hadd2(a, b),        __hsub2(a, b), __hmul2(a, b), __hfma2(a, b, c), __hneg2(a),
                          __habs2(a),           __hmin2(a, b), __hmax2(a, b), __heq2(a, b),     __hne2(a, b),
                          __hlt2(a, b),         __hle2(a, b),  __hgtu2(a, b), __hgeu2(a, b),    __hisnan2(a),
                          __lowhigh2highlow(a), h2floor(a),    h2ceil(a),     h2trunc(a),       h2rint(a)};
  for (int r = 0; r < sizeof results / sizeof results[0]; ++r) visit(r, results[r]);
}

template <class Pair, class Visit>
__device__ void rounded_results(Pair a, Visit visit) {
  const Pair results[] = {h2sqrt(a), h2rsqrt(a), h2rcp(a), h2exp(a), h2exp2(a),
                          h2log(a),  h2log2(a),  h2sin(a), h2cos(a)};
  for (int r = 0; r < sizeof results / sizeof results[0]; ++r) visit(r, results[r]);
}

#define RESULTS(name, type)                                                                                \
  extern "C" __global__ void name##_exact(const type* x, const type* y, const type* z, type* out, int n) { \
    const int i = blockIdx.x * blockDim.x + threadIdx.x;                                                   \
    if (i < n) exact_results(x[i], y[i], z[i], [&](int r, type result) { out[r * n + i] = result; });      \
  }                                                                                                        \
  extern "C" __global__ void name##_rounded(const type* x, type* out, int n) {                             \
    const int i = blockIdx.x * blockDim.x + threadIdx.x;                                                   \
    if (i < n) rounded_results(x[i], [&](int r, type result) { out[r * n + i] = result; });                \
  }
RESULTS(half, __half2)
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
RESULTS(bfloat, __nv_bfloat162)
#endif

// Only in cuda_fp16.h, or in hardware only for halves.
extern "C" __global__ void half_special(const __half2* x, const __half2* y, const __half2* z, __half2* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const __half2 a = x[i], b = y[i], c = z[i];
  const __half2 results[] = {__hadd2_sat(a, b), __hmul2_sat(a, b), __hfma2_sat(a, b, c), __h2div(a, b)};
  for (int r = 0; r < 4; ++r) out[r * n + i] = results[r];
}

// Through floats and integers and back.
struct Converted {
  __half nearest, towards_zero, down, up;
  __nv_bfloat16 bfloat, bfloat_towards_zero;
  float back;
  long long whole_long;
  int whole, whole_down;
};

extern "C" __global__ void conversions(const float* x, const __half* h, Converted* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  out[i] = {__float2half_rn(x[i]),     __float2half_rz(x[i]),     __float2half_rd(x[i]), __float2half_ru(x[i]),
            __float2bfloat16_rn(x[i]), __float2bfloat16_rz(x[i]), __half2float(h[i]),    __half2ll_rz(h[i]),
            __half2int_rn(h[i]),       __half2int_rd(h[i])};
}

// One block's dot product in halves, by pairs: a running sum for each thread, then a tree of shuffles for each warp.
extern "C" __global__ void half_dot(const __half2* x, const __half2* y, __half2* of_warp, int n) {
  __half2 sum = __float2half2_rn(0.0f);
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum = __hfma2(x[i], y[i], sum);
  for (int offset = 16; offset > 0; offset /= 2) sum = __hadd2(sum, __shfl_xor_sync(0xffffffffu, sum, offset));
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
}

// Pairs added by atomics.
extern "C" __global__ void half_scatter(const __half2* x, const int* to, __half2* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) atomicAdd(&out[to[i]], x[i]);
}
