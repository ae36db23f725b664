// CUDA's intrinsics for two or four integers in one register: out[k][i] is what the k-th gives of a[i] and b[i].

#define UNARY(X) X(abs) X(absss) X(neg) X(negss)
#define BINARY(X) \
  X(absdiffs)     \
  X(absdiffu)     \
  X(add)          \
  X(addss)        \
  X(addus)        \
  X(avgs)         \
  X(avgu)         \
  X(cmpeq)        \
  X(cmpges)       \
  X(cmpgeu)       \
  X(cmpgts)       \
  X(cmpgtu)       \
  X(cmples)       \
  X(cmpleu)       \
  X(cmplts)       \
  X(cmpltu)       \
  X(cmpne)        \
  X(haddu)        \
  X(maxs)         \
  X(maxu)         \
  X(mins)         \
  X(minu)         \
  X(sads)         \
  X(sadu)         \
  X(seteq)        \
  X(setges)       \
  X(setgeu)       \
  X(setgts)       \
  X(setltu)       \
  X(setne)        \
  X(sub)          \
  X(subss)        \
  X(subus)

#define OF_ONE(name) *next++ = __v##name##2(x), *next++ = __v##name##4(x);
#define OF_TWO(name) *next++ = __v##name##2(x, y), *next++ = __v##name##4(x, y);

extern "C" __global__ void simd(const unsigned* a, const unsigned* b, unsigned* out, int results) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned x = a[i], y = b[i];
  unsigned* next = out + static_cast<long>(i) * results;
  UNARY(OF_ONE)
  BINARY(OF_TWO)
}

// The largest and smallest, of none below zero, and of three: 32 bits, then pairs of 16.
extern "C" __global__ void extremes(const unsigned* a, const unsigned* b, const unsigned* c, unsigned* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned x = a[i], y = b[i], z = c[i];
  unsigned* const of_i = out + 12l * i;
  of_i[0] = __vimax_s32_relu(x, y);
  of_i[1] = __vimin_s32_relu(x, y);
  of_i[2] = __vimax_s16x2_relu(x, y);
  of_i[3] = __vimin_s16x2_relu(x, y);
  of_i[4] = __vimax3_s32(x, y, z);
  of_i[5] = __vimin3_u32(x, y, z);
  of_i[6] = __vimax3_s16x2_relu(x, y, z);
  of_i[7] = __vimin3_u16x2(x, y, z);
  of_i[8] = __viaddmax_s32(x, y, z);
  of_i[9] = __viaddmin_u32(x, y, z);
  of_i[10] = __viaddmax_s16x2_relu(x, y, z);
  of_i[11] = __viaddmin_u16x2(x, y, z);
}
