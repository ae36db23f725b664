// What can be put into a stream or stand in a node of a graph.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "address_space.h"
#include "cuda_api.h"
#include "device.h"

namespace flopcuda::vcuda {

struct Event;
struct Graph;
class Kernel;

struct KernelLaunch {
  std::shared_ptr<Kernel> kernel;
  const void* function = nullptr;  // as the caller named it
  dim3 grid, block;
  size_t shared_bytes = 0;
  bool cooperative = false;
  std::vector<uint8_t> parameters;
};

// Rows of bytes in planes.
struct Box {
  size_t width = 0, height = 1, depth = 1;
};
struct Place {
  char* begin = nullptr;
  size_t row = 0, plane = 0;  // bytes from one to the next
};

struct Copy {
  Place to, from;
  Box box;
  cudaMemcpyKind kind = cudaMemcpyDefault;
};

struct Fill {
  Place to;
  Box box;
  unsigned value = 0;
  unsigned element = 1;  // bytes
};

struct HostCall {
  cudaHostFn_t function = nullptr;
  void* argument = nullptr;
};

struct StreamCallback {
  cudaStreamCallback_t function = nullptr;
  cudaStream_t stream = nullptr;
  void* argument = nullptr;
};

struct EventRecord {
  std::shared_ptr<Event> event;
};
struct EventWait {
  std::shared_ptr<Event> event;
};

struct Allocate {
  Block block;
  void* place() const { return reinterpret_cast<void*>(block.begin); }
};
struct Release {
  void* place = nullptr;
};

struct Nothing {};

struct ChildGraph {
  std::shared_ptr<Graph> graph;
};

using Operation = std::variant<Nothing, KernelLaunch, Copy, Fill, HostCall, StreamCallback, EventRecord, EventWait,
                               Allocate, Release, ChildGraph>;

// Throws an Error for arguments that can't be, whatever memory there is; called before the operation is put anywhere.
void check(const Copy& copy);
void check(const Fill& fill);

// Whether the memory of a device that it touches is there. Known when it runs: a graph may allocate it.
bool has_memory(const Operation& operation);

// Runs it to its end, on this thread.
void execute(const Operation& operation, Device& device);

}  // namespace flopcuda::vcuda
