// What the programs about graphs share.
#pragma once

#include "scenarios.h"

__global__ void multiply_and_add(int* value, int factor, int summand) { *value = *value * factor + summand; }
__global__ void copy_value(int* to, const int* from) { *to = *from; }

inline void CUDART_CB increment(void* counter) { ++*static_cast<int*>(counter); }

inline cudaStream_t new_stream(unsigned flags = cudaStreamNonBlocking) {
  cudaStream_t stream;
  CHECK(cudaStreamCreateWithFlags(&stream, flags));
  return stream;
}

inline cudaGraphExec_t instantiate(cudaGraph_t graph, unsigned long long flags = 0) {
  cudaGraphExec_t executable;
  CHECK(cudaGraphInstantiate(&executable, graph, flags));
  return executable;
}

inline size_t node_count(cudaGraph_t graph) {
  size_t count;
  CHECK(cudaGraphGetNodes(graph, nullptr, &count));
  return count;
}
