// Memory: kinds of allocation, copies, fills, pools, what pointers say of themselves.
#include <numeric>

#include "scenarios.h"

SCENARIO(device_memory) {
  int* place;
  CHECK(cudaMalloc(&place, 4096));
  cudaPointerAttributes attributes;
  CHECK(cudaPointerGetAttributes(&attributes, place + 1023));
  EXPECT(attributes.type == cudaMemoryTypeDevice && attributes.device == 0);
  EXPECT(attributes.devicePointer == place + 1023 && attributes.hostPointer == nullptr);
  EXPECT(reinterpret_cast<size_t>(place) % 256 == 0);
  CHECK(cudaFree(place));
  CHECK(cudaFree(nullptr));
  EXPECT_ERROR(cudaFree(place), cudaErrorInvalidValue);
  CHECK(cudaPointerGetAttributes(&attributes, place));
  EXPECT(attributes.type == cudaMemoryTypeUnregistered);
  CHECK(cudaMalloc(&place, 0));
  EXPECT(place == nullptr);
}

SCENARIO(host_memory) {
  int *pinned, *on_device;
  CHECK(cudaHostAlloc(&pinned, 400, cudaHostAllocMapped));
  CHECK(cudaHostGetDevicePointer(&on_device, pinned, 0));
  unsigned flags;
  CHECK(cudaHostGetFlags(&flags, pinned));
  EXPECT(flags & cudaHostAllocMapped);
  cudaPointerAttributes attributes;
  CHECK(cudaPointerGetAttributes(&attributes, pinned));
  EXPECT(attributes.type == cudaMemoryTypeHost && attributes.hostPointer == pinned);
  CHECK(cudaMemset(on_device, 1, 400));
  EXPECT(pinned[99] == 0x01010101);
  EXPECT_ERROR(cudaFree(pinned), cudaErrorInvalidValue);
  CHECK(cudaFreeHost(pinned));

  std::vector<int> own(100);
  EXPECT_ERROR(cudaHostGetDevicePointer(&on_device, own.data(), 0), cudaErrorInvalidValue);
  CHECK(cudaHostRegister(own.data(), 400, cudaHostRegisterDefault));
  CHECK(cudaHostGetDevicePointer(&on_device, own.data(), 0));
  EXPECT_ERROR(cudaHostRegister(own.data(), 400, 0), cudaErrorHostMemoryAlreadyRegistered);
  CHECK(cudaHostUnregister(own.data()));
  EXPECT_ERROR(cudaHostUnregister(own.data()), cudaErrorHostMemoryNotRegistered);
}

__global__ void increment(int* values, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) ++values[i];
}

SCENARIO(memory_that_kernels_share_with_the_host) {
  int *managed, *pinned;
  CHECK(cudaMallocManaged(&managed, 40));
  CHECK(cudaMallocHost(&pinned, 40));
  std::iota(managed, managed + 10, 0);
  std::iota(pinned, pinned + 10, 0);
  cudaMemLocation device{cudaMemLocationTypeDevice, 0};
  CHECK(cudaMemAdvise(managed, 40, cudaMemAdviseSetReadMostly, device));
  CHECK(cudaMemPrefetchAsync(managed, 40, device, 0, nullptr));
  increment<<<1, 4>>>(managed, 10);
  increment<<<1, 4>>>(pinned, 10);
  CHECK(cudaDeviceSynchronize());
  EXPECT(managed[9] == 10 && pinned[9] == 10);
  CHECK(cudaFree(managed));
}

SCENARIO(pageable_memory_is_out_of_reach) {
  std::vector<int> own(10);
  increment<<<1, 4>>>(own.data(), 10);
  EXPECT_ERROR(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
  EXPECT(own[0] == 0);
}

SCENARIO(the_end_of_memory) {
  size_t free, total, less;
  CHECK(cudaMemGetInfo(&free, &total));
  EXPECT(total == 1 << 20 && free == total);
  void *half, *more;
  CHECK(cudaMalloc(&half, total / 2));
  CHECK(cudaMemGetInfo(&less, &total));
  EXPECT(less == total / 2);
  EXPECT_ERROR(cudaMalloc(&more, total / 2 + 1), cudaErrorMemoryAllocation);
  EXPECT_ERROR(cudaMalloc(&more, ~size_t{0} / 2), cudaErrorMemoryAllocation);
  EXPECT_ERROR(cudaMallocAsync(&more, total, nullptr), cudaErrorMemoryAllocation);
  EXPECT_ERROR(cudaGetLastError(), cudaErrorMemoryAllocation);
  CHECK(cudaMalloc(&more, total / 2));
  CHECK(cudaFree(half));
  CHECK(cudaMalloc(&half, total / 2));
  // Of the host there is more.
  CHECK(cudaMallocHost(&more, 2 * total));
  CHECK(cudaMallocManaged(&more, 2 * total));
}

SCENARIO(copies_in_every_direction) {
  std::vector<int> host(8), back(8);
  std::iota(host.begin(), host.end(), 1);
  int *a, *b;
  CHECK(cudaMalloc(&a, 32));
  CHECK(cudaMalloc(&b, 32));
  CHECK(cudaMemcpy(a, host.data(), 32, cudaMemcpyHostToDevice));
  CHECK(cudaMemcpy(b, a, 32, cudaMemcpyDeviceToDevice));
  CHECK(cudaMemcpy(back.data(), b, 32, cudaMemcpyDeviceToHost));
  EXPECT(back == host);
  CHECK(cudaMemcpy(back.data(), host.data() + 4, 16, cudaMemcpyHostToHost));
  EXPECT(back[0] == 5);
  CHECK(cudaMemcpy(b, back.data(), 32, cudaMemcpyDefault));
  CHECK(cudaMemcpyAsync(back.data(), b + 7, 4, cudaMemcpyDefault, nullptr));
  EXPECT(back[0] == 8);

  EXPECT_ERROR(cudaMemcpy(a, host.data(), 36, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaMemcpy(a + 7, host.data(), 8, cudaMemcpyDefault), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaMemcpy(back.data(), host.data(), 4, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaMemcpy(a, b, 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaMemcpy(a, nullptr, 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaMemcpy(a, b, 4, static_cast<cudaMemcpyKind>(9)), cudaErrorInvalidMemcpyDirection);
  CHECK(cudaMemcpy(a, nullptr, 0, cudaMemcpyHostToDevice));
}

SCENARIO(copies_of_rows_and_boxes) {
  std::vector<char> host(3 * 4 * 5), back(3 * 4 * 5);
  std::iota(host.begin(), host.end(), 0);
  char* rows;
  size_t pitch;
  CHECK(cudaMallocPitch(&rows, &pitch, 5, 12));
  EXPECT(pitch >= 5 && pitch % 32 == 0);
  CHECK(cudaMemcpy2D(rows, pitch, host.data(), 5, 5, 12, cudaMemcpyHostToDevice));
  CHECK(cudaMemcpy2DAsync(back.data(), 5, rows, pitch, 5, 12, cudaMemcpyDeviceToHost, nullptr));
  EXPECT(back == host);
  EXPECT_ERROR(cudaMemcpy2D(rows, 4, host.data(), 5, 5, 12, cudaMemcpyHostToDevice), cudaErrorInvalidPitchValue);

  // The box of 2 x 3 x 4 bytes at (1, 1, 1) of one of 3 x 4 x 5.
  cudaPitchedPtr box;
  CHECK(cudaMalloc3D(&box, cudaExtent{5, 4, 3}));
  cudaMemcpy3DParms parameters{};
  parameters.srcPtr = {host.data(), 5, 5, 4};
  parameters.dstPtr = box;
  parameters.srcPos = parameters.dstPos = {1, 1, 1};
  parameters.extent = {4, 3, 2};
  parameters.kind = cudaMemcpyHostToDevice;
  CHECK(cudaMemset3D(box, 99, cudaExtent{5, 4, 3}));
  CHECK(cudaMemcpy3D(&parameters));
  parameters = {};
  parameters.srcPtr = box;
  parameters.dstPtr = {back.data(), 5, 5, 4};
  parameters.extent = {5, 4, 3};
  parameters.kind = cudaMemcpyDeviceToHost;
  CHECK(cudaMemcpy3D(&parameters));
  for (int z = 0; z < 3; ++z) {
    for (int y = 0; y < 4; ++y) {
      for (int x = 0; x < 5; ++x) {
        const int i = (z * 4 + y) * 5 + x;
        EXPECT(back[i] == (x >= 1 && y >= 1 && z >= 1 ? host[i] : 99));
      }
    }
  }
}

SCENARIO(fills) {
  const Array<unsigned char> bytes(std::vector<unsigned char>(64, 7));
  CHECK(cudaMemset(bytes.data, 0x1ab, 4));  // The low byte counts.
  CHECK(cudaMemset2D(bytes.data + 8, 16, 1, 3, 2));
  const std::vector<unsigned char> got = bytes.get();
  for (int i = 0; i < 64; ++i) {
    const bool in_row = (i >= 8 && i < 11) || (i >= 24 && i < 27);
    EXPECT(got[i] == (i < 4 ? 0xab : in_row ? 1 : 7));
  }
  EXPECT_ERROR(cudaMemset(bytes.data, 0, 65), cudaErrorInvalidValue);
  unsigned char own[4];
  EXPECT_ERROR(cudaMemset(own, 0, 4), cudaErrorInvalidValue);
}

SCENARIO(memory_in_stream_order) {
  cudaStream_t stream;
  CHECK(cudaStreamCreate(&stream));
  cudaMemPool_t pool, own;
  CHECK(cudaDeviceGetDefaultMemPool(&pool, 0));
  int *a, *b;
  CHECK(cudaMallocAsync(&a, 1000, stream));
  CHECK(cudaMallocAsync(&b, 1000, stream));
  uint64_t used, most, threshold = ~uint64_t{0};
  CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used));
  EXPECT(used >= 2000);
  increment<<<1, 32, 0, stream>>>(a, 250);
  CHECK(cudaFreeAsync(a, stream));
  CHECK(cudaFree(b));
  CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used));
  CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &most));
  EXPECT(used == 0 && most >= 2000);
  EXPECT_ERROR(cudaFreeAsync(a, stream), cudaErrorInvalidValue);
  CHECK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold));
  threshold = 0;
  CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold));
  EXPECT(threshold == ~uint64_t{0});
  int reuse = 1;
  CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolReuseFollowEventDependencies, &reuse));
  EXPECT(reuse == 1);
  CHECK(cudaMemPoolTrimTo(pool, 0));

  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location = {cudaMemLocationTypeDevice, 0};
  CHECK(cudaMemPoolCreate(&own, &properties));
  CHECK(cudaMallocFromPoolAsync(&a, 1000, own, stream));
  CHECK(cudaMemPoolGetAttribute(own, cudaMemPoolAttrUsedMemCurrent, &used));
  EXPECT(used >= 1000);
  CHECK(cudaMemPoolDestroy(own));
  CHECK(cudaFreeAsync(a, stream));
  EXPECT_ERROR(cudaMemPoolDestroy(pool), cudaErrorInvalidValue);
  increment<<<1, 32, 0, stream>>>(a, 250);
  EXPECT_ERROR(cudaStreamSynchronize(stream), cudaErrorIllegalAddress);
}
