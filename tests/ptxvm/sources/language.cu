// clang-format off: kept PTX names its lines. What a compiler makes of C++ that is more than arithmetic: structures by value, tables with addresses in them,
// function pointers, virtual functions, recursion, a dense switch, shared memory of both kinds, wide integers.
// It includes nothing, so that all of its PTX comes from here: tests/ptxvm/ptx keeps what several compilers made of it.

struct Affine {
  double scale;
  float offsets[3];
  signed char shift;
};

// A structure that stays in parameter memory, indexed at run time, next to one of an odd size.
struct Odd {
  unsigned char bytes[5];
};

extern "C" __global__ void __launch_bounds__(128, 2)
    structures(const __grid_constant__ Affine affine, Odd odd, const float* x, float* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  y[i] = static_cast<float>(x[i] * affine.scale) + affine.offsets[i % 3] + affine.shift + odd.bytes[i % 5];
}

__device__ int numbers[4] = {10, 20, 30, 40};
__device__ const int* const pointers[3] = {numbers + 3, numbers, numbers + 1};
__constant__ float matrix[2][3] = {{1.5f, -2.0f, 3.25f}, {0.5f, 4.0f, -0.75f}};
__constant__ double precise = 0.1;

#pragma pack(push, 1)
struct Entry {
  char tag;
  const int* value;
};
#pragma pack(pop)
__device__ Entry entries[2] = {{'a', numbers + 1}, {'b', numbers + 2}};

extern "C" __global__ void tables(float* y) {
  const int i = threadIdx.x;
  y[i] = *pointers[i % 3] + matrix[i % 2][i % 3] + static_cast<float>(precise * i) + *entries[i % 2].value +
         entries[i % 2].tag;
}

using Function = int (*)(int, int);
__device__ int plus(int a, int b) { return a + b; }
__device__ int minus(int a, int b) { return a - b; }
__device__ int times(int a, int b) { return a * b; }
__constant__ Function functions[3] = {plus, minus, times};

struct Shape {
  __device__ virtual int area(int size) const { return -size; }
};
struct Square : Shape {
  __device__ int area(int size) const override { return size * size; }
};
struct Rectangle : Shape {
  int height;
  __device__ explicit Rectangle(int h) : height(h) {}
  __device__ int area(int size) const override { return size * height; }
};

extern "C" __global__ void calls(int* y) {
  const int i = threadIdx.x;
  const Square square;
  const Rectangle rectangle(i + 1);
  const Shape plain;
  const Shape* shapes[3] = {&square, &rectangle, &plain};
  y[i] = functions[i % 3](i, 7) + shapes[i % 3]->area(i);
}

__device__ __noinline__ int ackermann(int m, int n) {
  if (m == 0) return n + 1;
  if (n == 0) return ackermann(m - 1, 1);
  return ackermann(m - 1, ackermann(m, n - 1));
}

__device__ int step(int kind, int value) {
  switch (kind) {
    case 0: return value + 1;
    case 1: return value * 3;
    case 2: return value ^ 0x55;
    case 3: return value >> 2;
    case 4: return -value;
    case 5: return value | 9;
    case 6: return value & 0x3f;
    case 7: return value - 100;
    default: return value << 4;
  }
}

extern "C" __global__ void recursion_and_switch(int* y) {
  const int i = threadIdx.x;
  y[i] = ackermann(i % 3, i % 4) + step(i % 9, i);
}

// Each block reverses its values over shared memory of the launch's size and sums them over a warp's exchange.
extern "C" __global__ void reverse(const int* x, int* y, int* sums) {
  extern __shared__ int values[];
  __shared__ int total;
  const int i = threadIdx.x, n = blockDim.x;
  values[i] = x[blockIdx.x * n + i];
  if (i == 0) total = 0;
  __syncthreads();
  const int value = values[n - 1 - i];
  y[blockIdx.x * n + i] = value;
  int sum = value;
  for (int lane = 16; lane > 0; lane /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lane);
  if (i % 32 == 0) atomicAdd(&total, sum);
  __syncthreads();
  if (i == 0) sums[blockIdx.x] = total;
}

extern "C" __global__ void wide(const unsigned long long* a, const unsigned long long* b, unsigned long long* y) {
  const int i = threadIdx.x;
  y[3 * i] = __umul64hi(a[i], b[i]);
  y[3 * i + 1] = a[i] / (b[i] | 1);
  y[3 * i + 2] = a[i] % (b[i] | 1) + __popcll(a[i]) + __clzll(b[i]);
}
