// Launches: arguments, symbols, configurations, attributes, printf, cooperative grids.
#include <cooperative_groups.h>

#include "scenarios.h"

__global__ void saxpy(int n, float a, const float* x, float* y) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = a * x[i] + y[i];
}

SCENARIO(kernel_over_device_memory) {
  const int n = 1000;
  std::vector<float> x(n), y(n);
  for (int i = 0; i < n; ++i) x[i] = i, y[i] = 2 * i;
  const Array<float> on_device(x), result(y);
  saxpy<<<4, 256>>>(n, 3, on_device.data, result.data);
  CHECK(cudaGetLastError());
  const std::vector<float> got = result.get();
  for (int i = 0; i < n; ++i) EXPECT(got[i] == 5.0f * i);
}

struct Small {
  char c;
  double d;
};
struct alignas(32) Wide {
  int values[5];
};
struct Empty {};
using Function = int (*)(int);
__device__ int twice(int x) { return 2 * x; }
__device__ Function twice_pointer = twice;

__global__ void arguments(bool flag, char c, short s, double d, Empty, Small small, Wide wide, Function f,
                          double* out) {
  out[0] = flag;
  out[1] = c;
  out[2] = s;
  out[3] = d;
  out[4] = small.c;
  out[5] = small.d;
  out[6] = wide.values[4];
  out[7] = f(21);
}

SCENARIO(arguments_of_every_size) {
  const Array<double> out(std::vector<double>(8));
  Function f;
  CHECK(cudaMemcpyFromSymbol(&f, twice_pointer, sizeof f));
  arguments<<<1, 1>>>(true, -3, -300, 1.25, Empty(), Small{7, 2.5}, Wide{{1, 2, 3, 4, 5}}, f, out.data);
  CHECK(cudaGetLastError());
  EXPECT(out.get() == (std::vector<double>{1, -3, -300, 1.25, 7, 2.5, 5, 42}));
}

__managed__ int managed = 5;
__device__ int counter = 3;
__constant__ float table[4] = {1, 2, 3, 4};
__global__ void step(int i) {
  counter += static_cast<int>(table[i]);
  managed += counter;
}

SCENARIO(symbols_of_every_kind) {
  managed += 1;
  step<<<1, 1>>>(3);
  CHECK(cudaDeviceSynchronize());
  int value;
  CHECK(cudaMemcpyFromSymbol(&value, counter, sizeof value));
  EXPECT(value == 7 && managed == 13);

  const float ten = 10;
  CHECK(cudaMemcpyToSymbol(table, &ten, sizeof ten, sizeof ten));
  step<<<1, 1>>>(1);
  void* place;
  size_t size;
  CHECK(cudaGetSymbolAddress(&place, counter));
  CHECK(cudaMemcpy(&value, place, sizeof value, cudaMemcpyDeviceToHost));
  CHECK(cudaGetSymbolSize(&size, table));
  EXPECT(value == 17 && managed == 30 && size == 16);

  EXPECT_ERROR(cudaMemcpyToSymbol(table, &ten, sizeof ten, 16), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaGetSymbolAddress(&place, &value), cudaErrorInvalidSymbol);
  cudaPointerAttributes attributes;
  CHECK(cudaPointerGetAttributes(&attributes, &managed));
  EXPECT(attributes.type == cudaMemoryTypeManaged);
}

__global__ void write_to(float* place) { *place = 1; }

SCENARIO(constants_are_read_only) {
  void* place;
  CHECK(cudaGetSymbolAddress(&place, table));
  write_to<<<1, 1>>>(static_cast<float*>(place));
  EXPECT_ERROR(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
}

__global__ void hello(int n) { printf("thread %d of %s: %5.2f\n", threadIdx.x, "it", n / 4.0); }

SCENARIO(output_of_a_kernel) {
  std::printf("before\n");
  hello<<<1, 2>>>(3);
  CHECK(cudaDeviceSynchronize());
  std::printf("after\n");
}

__global__ void reverse(int* values) {
  extern __shared__ int shared[];
  shared[threadIdx.x] = values[threadIdx.x];
  __syncthreads();
  values[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

SCENARIO(dynamic_shared_memory) {
  const Array<int> values({1, 2, 3, 4});
  reverse<<<1, 4, 16>>>(values.data);
  CHECK(cudaGetLastError());
  EXPECT(values.get() == (std::vector<int>{4, 3, 2, 1}));

  const int most = 100 * 1024;
  reverse<<<1, 4, most>>>(values.data);
  EXPECT_ERROR(cudaGetLastError(), cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute(reverse, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
  reverse<<<1, 4, most>>>(values.data);
  CHECK(cudaGetLastError());
  EXPECT(values.get() == (std::vector<int>{1, 2, 3, 4}));
  EXPECT_ERROR(cudaFuncSetAttribute(reverse, cudaFuncAttributeMaxDynamicSharedMemorySize, 1 << 20),
               cudaErrorInvalidValue);
}

__global__ void __launch_bounds__(128) bounded(int* out) {
  __shared__ int shared[100];
  shared[threadIdx.x % 100] = threadIdx.x;
  if (out) *out = shared[0];
}

SCENARIO(attributes_of_a_kernel) {
  cudaFuncAttributes attributes;
  CHECK(cudaFuncGetAttributes(&attributes, bounded));
  EXPECT(attributes.maxThreadsPerBlock == 128 && attributes.sharedSizeBytes == 400 && attributes.numRegs > 0);
  EXPECT(attributes.maxDynamicSharedSizeBytes == 48 * 1024 && attributes.binaryVersion == 80);
  const char* name;
  CHECK(cudaFuncGetName(&name, bounded));
  EXPECT(std::string(name) == "_Z7boundedPi");
  size_t offset, size;
  CHECK(cudaFuncGetParamInfo(reinterpret_cast<const void*>(saxpy), 2, &offset, &size));
  EXPECT(offset == 8 && size == 8);
  EXPECT_ERROR(cudaFuncGetParamInfo(reinterpret_cast<const void*>(saxpy), 4, &offset, &size), cudaErrorInvalidValue);
}

SCENARIO(occupancy) {
  int blocks;
  // Of sm_80: 2048 threads, 32 blocks and 164 KiB of shared memory, 1 KiB of which each block takes for the system.
  CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, saxpy, 256, 0));
  EXPECT(blocks == 8);
  CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, saxpy, 32, 0));
  EXPECT(blocks == 32);
  CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, reverse, 32, 40 * 1024));
  EXPECT(blocks == 4);
  CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, bounded, 256, 0));
  EXPECT(blocks == 0);
  size_t bytes;
  CHECK(cudaOccupancyAvailableDynamicSMemPerBlock(&bytes, saxpy, 2, 256));
  EXPECT(bytes == 81 * 1024);
  int grid, block;
  CHECK(cudaOccupancyMaxPotentialBlockSize(&grid, &block, bounded));
  EXPECT(block == 128);
}

SCENARIO(invalid_configurations) {
  int* null = nullptr;
  const auto error_of = [&](dim3 grid, dim3 block) {
    bounded<<<grid, block>>>(null);
    return cudaGetLastError();
  };
  EXPECT_ERROR(error_of(0, 1), cudaErrorInvalidConfiguration);
  EXPECT_ERROR(error_of(1, 0), cudaErrorInvalidConfiguration);
  EXPECT_ERROR(error_of(1, 1025), cudaErrorInvalidConfiguration);
  EXPECT_ERROR(error_of(1, dim3(1, 1, 65)), cudaErrorInvalidConfiguration);
  EXPECT_ERROR(error_of(dim3(1, 65536), 1), cudaErrorInvalidConfiguration);
  EXPECT_ERROR(error_of(1, 129), cudaErrorLaunchOutOfResources);
  EXPECT_ERROR(cudaLaunchKernel(&null, 1, 1, nullptr, 0, nullptr), cudaErrorInvalidDeviceFunction);
  EXPECT(cudaGetLastError() == cudaErrorInvalidDeviceFunction);
  CHECK(error_of(1, 128));  // None of them lasts.
}

__global__ void total(int* values, int* sum) {
  auto grid = cooperative_groups::this_grid();
  for (int round = 1; round <= 3; ++round) {
    values[grid.thread_rank()] = round;
    grid.sync();
    if (grid.thread_rank() == 0) {
      for (int i = 0; i < grid.size(); ++i) *sum += values[i];
    }
    grid.sync();
  }
}

SCENARIO(cooperative_grid) {
  int blocks, processors;
  CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
  CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, total, 256, 0));
  blocks *= processors;
  const Array<int> values(std::vector<int>(blocks * 256)), sum({0});
  void* list[] = {const_cast<int**>(&values.data), const_cast<int**>(&sum.data)};
  CHECK(cudaLaunchCooperativeKernel(total, blocks, 256, list));
  EXPECT(sum.get()[0] == (1 + 2 + 3) * blocks * 256);
  EXPECT_ERROR(cudaLaunchCooperativeKernel(total, blocks + 1, 256, list), cudaErrorCooperativeLaunchTooLarge);
}

SCENARIO(attributes_of_a_launch) {
  const Array<int> values(std::vector<int>(64)), sum({0});
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = 2;
  config.blockDim = 32;
  config.attrs = &attribute;
  config.numAttrs = 1;
  CHECK(cudaLaunchKernelEx(&config, total, values.data, sum.data));
  EXPECT(sum.get()[0] == 6 * 64);
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {2, 1, 1};
  EXPECT_ERROR(cudaLaunchKernelEx(&config, total, values.data, sum.data), cudaErrorNotSupported);
}

const char* kLibrary = R"(
.version 8.0
.target sm_80
.address_size 64
.visible .global .u32 bias = 5;
.visible .entry add_bias(.param .u64 place) {
  .reg .b64 %p; .reg .b32 %x, %y;
  ld.param.u64 %p, [place];
  ld.global.u32 %x, [%p];
  ld.global.u32 %y, [bias];
  add.s32 %x, %x, %y;
  st.global.u32 [%p], %x;
  ret;
})";

SCENARIO(library_of_ptx) {
  cudaLibrary_t library;
  cudaKernel_t kernel;
  CHECK(cudaLibraryLoadData(&library, kLibrary, nullptr, nullptr, 0, nullptr, nullptr, 0));
  CHECK(cudaLibraryGetKernel(&kernel, library, "add_bias"));
  const Array<int> value({37});
  void* list[] = {const_cast<int**>(&value.data)};
  CHECK(cudaLaunchKernel(kernel, 1, 1, list, 0, nullptr));
  EXPECT(value.get()[0] == 42);

  int* bias;
  size_t size;
  CHECK(cudaLibraryGetGlobal(reinterpret_cast<void**>(&bias), &size, library, "bias"));
  CHECK(cudaMemset(bias, 0, size));
  CHECK(cudaLaunchKernel(kernel, 1, 1, list, 0, nullptr));
  EXPECT(size == 4 && value.get()[0] == 42);

  unsigned count;
  CHECK(cudaLibraryGetKernelCount(&count, library));
  EXPECT(count == 1);
  EXPECT_ERROR(cudaLibraryGetKernel(&kernel, library, "other"), cudaErrorSymbolNotFound);
  CHECK(cudaLibraryUnload(library));
  EXPECT_ERROR(cudaLibraryUnload(library), cudaErrorInvalidResourceHandle);
  EXPECT_ERROR(
      cudaLibraryLoadData(&library, ".version 8.0\n.target sm_80\n.nonsense", nullptr, nullptr, 0, nullptr, nullptr, 0),
      cudaErrorInvalidPtx);
}
