// printf and assert on the device.

#include <assert.h>
#include <stdio.h>

extern "C" __global__ void report(const int* in, const double* real, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i == 0) printf("no arguments, 100%%\n");
  if (i >= n) return;
  printf("%d|%5d|%-6d|%+d|%u|%x|%08X|%o|%c|%s\n", i, in[i], in[i], in[i], in[i], in[i], in[i], in[i], 'a' + i % 26,
         in[i] < 0 ? "negative" : "natural");
  const long long wide = in[i] * 10000000000ll;
  printf("%lld|%llu|%llx|%f|%.3e|%10.2f|%g|%*d\n", wide, wide, wide, real[i], real[i], real[i], real[i], i % 5 + 1, i);
}

extern "C" __global__ void check_limit(const int* in, int limit, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) assert(in[i] < limit);
}
