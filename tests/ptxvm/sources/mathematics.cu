// The CUDA math library. Function r of element i is out[r * n + i].

template <class T, int kCount>
__device__ void store(const T (&results)[kCount], T* out, int i, int n) {
  for (int r = 0; r < kCount; ++r) out[r * n + i] = results[r];
}

#define ELEMENT(i, n)                                  \
  const int i = blockIdx.x * blockDim.x + threadIdx.x; \
  if (i >= n) return

extern "C" __global__ void float_unary(const float* x, float* out, int n) {
  ELEMENT(i, n);
  const float v = x[i];
  const float results[] = {sinf(v),  cosf(v),   tanf(v),  expf(v),  exp2f(v), expm1f(v), logf(v),  log2f(v), log10f(v),
                           sqrtf(v), rsqrtf(v), cbrtf(v), tanhf(v), erff(v),  atanf(v),  sinhf(v), coshf(v), 1.0f / v};
  store(results, out, i, n);
}

extern "C" __global__ void float_binary(const float* x, const float* y, float* out, int n) {
  ELEMENT(i, n);
  const float results[] = {powf(x[i], y[i]), atan2f(x[i], y[i]), hypotf(x[i], y[i]), fmodf(x[i], y[i]), x[i] / y[i]};
  store(results, out, i, n);
}

extern "C" __global__ void double_unary(const double* x, double* out, int n) {
  ELEMENT(i, n);
  const double v = x[i];
  const double results[] = {sin(v),   cos(v),  exp(v),  log(v), log2(v), sqrt(v),
                            rsqrt(v), cbrt(v), tanh(v), erf(v), atan(v), 1.0 / v};
  store(results, out, i, n);
}

extern "C" __global__ void double_binary(const double* x, const double* y, double* out, int n) {
  ELEMENT(i, n);
  const double results[] = {pow(x[i], y[i]), hypot(x[i], y[i]), fmod(x[i], y[i]), x[i] / y[i]};
  store(results, out, i, n);
}

// ---- wide integers ----

struct Division {
  long long quotient, remainder, product_high;
  unsigned long long unsigned_quotient, unsigned_remainder, unsigned_product_high;
  int leading_zeros, ones, first_one, quotient_32;
};

extern "C" __global__ void divide(const long long* x, const long long* y, Division* out, int n) {
  ELEMENT(i, n);
  const long long a = x[i], b = y[i];
  const auto u = static_cast<unsigned long long>(a), v = static_cast<unsigned long long>(b);
  out[i] = {a / b,           a % b,
            __mul64hi(a, b), u / v,
            u % v,           __umul64hi(u, v),
            __clzll(a),      __popcll(u),
            __ffsll(a),      static_cast<int>(static_cast<int>(a) / (static_cast<int>(b) | 1))};
}

// Sums of double products; one partial sum for each thread.
extern "C" __global__ void double_dot(const double* x, const double* y, double* partial, int n) {
  const int thread = blockIdx.x * blockDim.x + threadIdx.x;
  double sum = 0.0;
  for (int i = thread; i < n; i += gridDim.x * blockDim.x) sum = fma(x[i], y[i], sum);
  partial[thread] = sum;
}
