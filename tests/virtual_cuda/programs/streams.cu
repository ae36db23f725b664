// Streams and events: order, callbacks, time, and what handles are good for.
#include <atomic>
#include <chrono>
#include <thread>

#include "scenarios.h"

__global__ void multiply_and_add(int* value, int factor, int summand) { *value = *value * factor + summand; }

SCENARIO(work_of_a_stream_is_in_order) {
  const Array<int> value({1});
  cudaStream_t stream;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  int expected = 1;
  for (int i = 0; i < 20; ++i) {
    multiply_and_add<<<1, 1, 0, stream>>>(value.data, 3, i);
    expected = expected * 3 + i;
  }
  int result;
  CHECK(cudaMemcpyAsync(&result, value.data, sizeof result, cudaMemcpyDeviceToHost, stream));
  CHECK(cudaStreamSynchronize(stream));
  CHECK(cudaStreamQuery(stream));
  EXPECT(result == expected);
  CHECK(cudaStreamDestroy(stream));
  EXPECT_ERROR(cudaStreamSynchronize(stream), cudaErrorInvalidResourceHandle);
}

SCENARIO(streams_wait_for_events) {
  const Array<int> value({1});
  cudaStream_t first, second;
  cudaEvent_t event;
  CHECK(cudaStreamCreate(&first));
  CHECK(cudaStreamCreate(&second));
  CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  multiply_and_add<<<1, 1, 0, first>>>(value.data, 5, 2);
  CHECK(cudaEventRecord(event, first));
  CHECK(cudaStreamWaitEvent(second, event));
  multiply_and_add<<<1, 1, 0, second>>>(value.data, 10, 1);
  CHECK(cudaStreamSynchronize(second));
  EXPECT(value.get()[0] == 71);
}

SCENARIO(default_streams) {
  const Array<int> value({1});
  for (cudaStream_t stream : {cudaStream_t(nullptr), cudaStreamLegacy, cudaStreamPerThread}) {
    multiply_and_add<<<1, 1, 0, stream>>>(value.data, 2, 1);
    CHECK(cudaStreamSynchronize(stream));
  }
  EXPECT(value.get()[0] == 15);
  unsigned long long mine, theirs = 0;
  CHECK(cudaStreamGetId(cudaStreamPerThread, &mine));
  std::thread([&] { CHECK(cudaStreamGetId(cudaStreamPerThread, &theirs)); }).join();
  EXPECT(mine != theirs);
}

SCENARIO(what_a_stream_says_of_itself) {
  int least, greatest, priority, device = -1;
  CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  EXPECT(least == 0 && greatest < least);
  cudaStream_t stream;
  CHECK(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest - 100));
  CHECK(cudaStreamGetPriority(stream, &priority));
  EXPECT(priority == greatest);
  unsigned flags;
  CHECK(cudaStreamGetFlags(stream, &flags));
  EXPECT(flags == cudaStreamNonBlocking);
  CHECK(cudaStreamGetDevice(stream, &device));
  EXPECT(device == 0);
  EXPECT_ERROR(cudaStreamCreateWithFlags(&stream, 2), cudaErrorInvalidValue);
}

struct Note {
  std::vector<int>* list;
  int number;
};
void CUDART_CB write_down(void* note) {
  auto* written = static_cast<Note*>(note);
  written->list->push_back(written->number);
}
void CUDART_CB write_down_of_stream(cudaStream_t, cudaError_t status, void* note) {
  EXPECT(status == cudaSuccess);
  write_down(note);
}

SCENARIO(functions_of_the_host_are_in_order) {
  const Array<int> value({1});
  std::vector<int> list;
  Note notes[] = {{&list, 1}, {&list, 2}};
  int seen = 0;
  CHECK(cudaLaunchHostFunc(nullptr, write_down, &notes[0]));
  multiply_and_add<<<1, 1>>>(value.data, 1, 6);
  CHECK(cudaMemcpyAsync(&seen, value.data, sizeof seen, cudaMemcpyDeviceToHost, nullptr));
  CHECK(cudaStreamAddCallback(nullptr, write_down_of_stream, &notes[1], 0));
  CHECK(cudaDeviceSynchronize());
  EXPECT(list == (std::vector<int>{1, 2}) && seen == 7);
}

SCENARIO(events_tell_the_time) {
  cudaEvent_t start, end, untimed;
  CHECK(cudaEventCreate(&start));
  CHECK(cudaEventCreate(&end));
  CHECK(cudaEventCreateWithFlags(&untimed, cudaEventDisableTiming));
  float milliseconds;
  CHECK(cudaEventQuery(start));
  EXPECT_ERROR(cudaEventElapsedTime(&milliseconds, start, end), cudaErrorInvalidResourceHandle);
  const auto before = std::chrono::steady_clock::now();
  CHECK(cudaEventRecord(start));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(cudaEventRecord(end));
  const auto after = std::chrono::steady_clock::now();
  CHECK(cudaEventSynchronize(end));
  CHECK(cudaEventElapsedTime(&milliseconds, start, end));
  EXPECT(milliseconds >= 20 && milliseconds <= std::chrono::duration<float, std::milli>(after - before).count());
  CHECK(cudaEventElapsedTime(&milliseconds, end, start));
  EXPECT(milliseconds <= -20);
  CHECK(cudaEventRecord(untimed));
  EXPECT_ERROR(cudaEventElapsedTime(&milliseconds, start, untimed), cudaErrorInvalidResourceHandle);
  CHECK(cudaEventDestroy(end));
  EXPECT_ERROR(cudaEventRecord(end), cudaErrorInvalidResourceHandle);
}

__global__ void count(int* value, int times) {
  for (int i = 0; i < times; ++i) atomicAdd(value, 1);
}

SCENARIO(threads_share_a_device) {
  const Array<int> value({0});
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      cudaStream_t stream;
      CHECK(cudaStreamCreate(&stream));
      for (int i = 0; i < 20; ++i) {
        void* scratch;
        CHECK(cudaMalloc(&scratch, 1000));
        count<<<2, 32, 0, stream>>>(value.data, 3);
        CHECK(cudaGetLastError());
        CHECK(cudaFree(scratch));
      }
      CHECK(cudaStreamDestroy(stream));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT(value.get()[0] == 8 * 20 * 2 * 32 * 3);
}

SCENARIO(the_last_error_is_a_thread_s_own) {
  EXPECT_ERROR(cudaSetDevice(99), cudaErrorInvalidDevice);
  std::thread([] { EXPECT(cudaPeekAtLastError() == cudaSuccess); }).join();
  EXPECT(cudaPeekAtLastError() == cudaErrorInvalidDevice);
  EXPECT(cudaGetLastError() == cudaErrorInvalidDevice);
  EXPECT(cudaGetLastError() == cudaSuccess);
}
