// Two devices: whose memory is whose, access among them, and that a fault of one leaves the other alone.
#include <thread>

#include "scenarios.h"

__device__ int own = 1;
__managed__ int shared_by_all = 0;

__global__ void add(int* value, int summand) { *value += summand; }
__global__ void add_to_own(int summand) {
  own += summand;
  shared_by_all += summand;
}
__global__ void trap_it() { __trap(); }

static int* allocate_on(int device) {
  int* place;
  CHECK(cudaSetDevice(device));
  CHECK(cudaMalloc(&place, 4));
  CHECK(cudaMemset(place, 0, 4));
  return place;
}

static int read(const int* place) {
  int value;
  CHECK(cudaMemcpy(&value, place, 4, cudaMemcpyDefault));
  return value;
}

SCENARIO(each_has_its_own_of_everything) {
  int count;
  CHECK(cudaGetDeviceCount(&count));
  EXPECT(count == 2);
  for (int device = 0; device < count; ++device) {
    CHECK(cudaSetDevice(device));
    add_to_own<<<1, 1>>>(10 * (device + 1));
    CHECK(cudaDeviceSynchronize());
  }
  for (int device = 0; device < count; ++device) {
    int value;
    CHECK(cudaSetDevice(device));
    CHECK(cudaMemcpyFromSymbol(&value, own, sizeof value));
    EXPECT(value == 1 + 10 * (device + 1));
  }
  EXPECT(shared_by_all == 30);
  int* place = allocate_on(1);
  cudaPointerAttributes attributes;
  CHECK(cudaPointerGetAttributes(&attributes, place));
  EXPECT(attributes.device == 1);
  EXPECT_ERROR(cudaSetDevice(2), cudaErrorInvalidDevice);
  int current;
  CHECK(cudaGetDevice(&current));
  EXPECT(current == 1);
  std::thread([] {
    int device;
    CHECK(cudaGetDevice(&device));
    EXPECT(device == 0);
  }).join();
}

SCENARIO(memory_of_another_device) {
  int* theirs = allocate_on(1);
  int can;
  CHECK(cudaSetDevice(0));
  CHECK(cudaDeviceCanAccessPeer(&can, 0, 1));
  EXPECT(can == 1);
  CHECK(cudaDeviceEnablePeerAccess(1, 0));
  EXPECT_ERROR(cudaDeviceEnablePeerAccess(1, 0), cudaErrorPeerAccessAlreadyEnabled);
  EXPECT_ERROR(cudaDeviceEnablePeerAccess(0, 0), cudaErrorInvalidDevice);
  add<<<1, 1>>>(theirs, 5);
  CHECK(cudaDeviceSynchronize());
  EXPECT(read(theirs) == 5);
  int* later = allocate_on(1);
  CHECK(cudaSetDevice(0));
  add<<<1, 1>>>(later, 6);
  CHECK(cudaDeviceSynchronize());
  int* mine = allocate_on(0);
  CHECK(cudaMemcpyPeer(mine, 0, later, 1, 4));
  EXPECT(read(mine) == 6);
  CHECK(cudaDeviceDisablePeerAccess(1));
  EXPECT_ERROR(cudaDeviceDisablePeerAccess(1), cudaErrorPeerAccessNotEnabled);
  add<<<1, 1>>>(theirs, 5);
  EXPECT_ERROR(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
  EXPECT_ERROR(cudaFree(mine), cudaErrorIllegalAddress);

  CHECK(cudaSetDevice(1));  // Which knows nothing of it.
  add<<<1, 1>>>(theirs, 5);
  CHECK(cudaDeviceSynchronize());
  EXPECT(read(theirs) == 10);
}

SCENARIO(handles_belong_to_a_device) {
  cudaStream_t stream;
  cudaEvent_t event;
  CHECK(cudaStreamCreate(&stream));
  CHECK(cudaSetDevice(1));
  CHECK(cudaEventCreate(&event));
  EXPECT_ERROR(cudaEventRecord(event, stream), cudaErrorInvalidResourceHandle);
  CHECK(cudaEventRecord(event, nullptr));
  CHECK(cudaStreamWaitEvent(stream, event));
}
