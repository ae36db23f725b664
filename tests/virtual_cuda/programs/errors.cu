// Errors of kernels: they stay until the device is reset. Each needs a process of its own, as on hardware.
#include <cassert>

#include "scenarios.h"

static void expect_lasting(cudaError_t error) {
  void* place;
  EXPECT_ERROR(cudaDeviceSynchronize(), error);
  EXPECT_ERROR(cudaMalloc(&place, 4), error);
  EXPECT(cudaGetLastError() == error);
  EXPECT(cudaGetLastError() == error);
  CHECK(cudaDeviceReset());
  CHECK(cudaMalloc(&place, 4));
  CHECK(cudaMemset(place, 0, 4));
}

__global__ void write_at(int* values, int index) { values[index] = 1; }
__global__ void write_shared_at(int index) {
  __shared__ volatile int shared[4];
  shared[index] = 1;
}
__global__ void write_misaligned(char* bytes) { *reinterpret_cast<int*>(bytes + 1) = 1; }
__global__ void fail_assertion(int value) { assert(value > 3); }
__global__ void trap_it() { __trap(); }
__global__ void run_away(volatile int* value) {
  while (*value == 0) {
  }
}

SCENARIO(out_of_bounds) {
  const Array<int> values({0, 0});
  write_at<<<1, 1>>>(values.data, 2);
  expect_lasting(cudaErrorIllegalAddress);
}

SCENARIO(freed_memory) {
  int* values;
  CHECK(cudaMalloc(&values, 4));
  CHECK(cudaFree(values));
  write_at<<<1, 1>>>(values, 0);
  expect_lasting(cudaErrorIllegalAddress);
}

SCENARIO(null_pointer) {
  write_at<<<1, 1>>>(nullptr, 0);
  expect_lasting(cudaErrorIllegalAddress);
}

SCENARIO(out_of_shared_memory) {
  write_shared_at<<<1, 1>>>(1000);
  expect_lasting(cudaErrorLaunchFailure);
}

SCENARIO(misaligned) {
  const Array<char> bytes(std::vector<char>(8));
  write_misaligned<<<1, 1>>>(bytes.data);
  expect_lasting(cudaErrorMisalignedAddress);
}

SCENARIO(failed_assertion) {
  fail_assertion<<<1, 1>>>(3);
  expect_lasting(cudaErrorAssert);
}

SCENARIO(trap) {
  trap_it<<<1, 1>>>();
  expect_lasting(cudaErrorLaunchFailure);
}

SCENARIO(endless_loop) {
  const Array<int> values({0});
  run_away<<<1, 1>>>(values.data);
  expect_lasting(cudaErrorLaunchTimeout);
}

SCENARIO(the_launch_itself_reports_it) {
  int* null = nullptr;
  int index = 0;
  void* list[] = {&null, &index};
  EXPECT_ERROR(cudaLaunchKernel(write_at, 1, 1, list, 0, nullptr), cudaErrorIllegalAddress);
}

SCENARIO(what_still_works_after_a_fault) {
  cudaStream_t stream;
  cudaEvent_t event;
  int count, ordinal;
  CHECK(cudaStreamCreate(&stream));
  CHECK(cudaEventCreate(&event));
  trap_it<<<1, 1>>>();
  CHECK(cudaGetDeviceCount(&count));
  CHECK(cudaGetDevice(&ordinal));
  CHECK(cudaEventDestroy(event));
  CHECK(cudaStreamDestroy(stream));
}

SCENARIO(names_and_sentences) {
  for (int code = 0; code < 1100; ++code) {
    const auto error = static_cast<cudaError_t>(code);
    std::printf("%d %s|%s\n", code, cudaGetErrorName(error), cudaGetErrorString(error));
  }
}
