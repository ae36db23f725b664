// Copies and fills in all their kinds: one form of each does them all.
#include <cstring>

#include "capture.h"
#include "device.h"
#include "error.h"
#include "operations.h"
#include "registration.h"
#include "streams.h"

namespace flopcuda::vcuda {
namespace {

char* bytes(const void* pointer) { return const_cast<char*>(static_cast<const char*>(pointer)); }

Copy linear(void* to, const void* from, size_t size, cudaMemcpyKind kind) {
  return {{bytes(to), size, size}, {bytes(from), size, size}, {size}, kind};
}

Copy rows(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
          cudaMemcpyKind kind) {
  return {{bytes(to), to_pitch, 0}, {bytes(from), from_pitch, 0}, {width, height}, kind};
}

Place place_in(const cudaPitchedPtr& memory, const cudaPos& at) {
  const size_t plane = memory.pitch * memory.ysize;
  return {bytes(memory.ptr) + at.z * plane + at.y * memory.pitch + at.x, memory.pitch, plane};
}

// cudaMemcpy3DParms and cudaMemcpy3DPeerParms.
template <class Parameters>
Copy planes(const Parameters* parameters, cudaMemcpyKind kind) {
  const Parameters& p = require_pointer(parameters);
  require(!p.srcArray && !p.dstArray, cudaErrorNotSupported);
  return {place_in(p.dstPtr, p.dstPos),
          place_in(p.srcPtr, p.srcPos),
          {p.extent.width, p.extent.height, p.extent.depth},
          kind};
}

Copy planes(const cudaMemcpy3DParms* parameters) { return planes(parameters, require_pointer(parameters).kind); }

// Of a variable: to it or from it.
enum class Direction : uint8_t { kToSymbol, kFromSymbol };

Copy symbol_copy(const void* variable, const void* other, size_t size, size_t offset, cudaMemcpyKind kind,
                 Direction direction) {
  const Symbol symbol = symbol_of(variable);
  require(offset <= symbol.size && size <= symbol.size - offset, cudaErrorInvalidValue);
  char* const place = symbol.place + offset;
  return direction == Direction::kToSymbol ? linear(place, other, size, kind) : linear(bytes(other), place, size, kind);
}

template <class Transfer>
void enqueue(const Transfer& transfer, cudaStream_t stream) {
  check(transfer);
  submit(*stream_of(stream), transfer);
}

// The host waits for it, which a capture does not allow.
template <class Transfer>
void run_now(const Transfer& transfer) {
  forbid_while_capturing();
  enqueue(transfer, nullptr);
}

Fill fill_rows(void* to, size_t pitch, int value, size_t width, size_t height) {
  return {{bytes(to), pitch, 0}, {width, height}, static_cast<unsigned char>(value), 1};
}

Fill fill_planes(const cudaPitchedPtr& to, int value, const cudaExtent& extent) {
  return {place_in(to, {}), {extent.width, extent.height, extent.depth}, static_cast<unsigned char>(value), 1};
}

void require_devices(int to, int from) {
  device(to);
  device(from);
}

}  // namespace
}  // namespace flopcuda::vcuda

using namespace flopcuda::vcuda;

// ---- copies ----

cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind kind) {
  return entry([&] { run_now(linear(to, from, size, kind)); });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind kind, cudaStream_t stream) {
  return entry([&] { enqueue(linear(to, from, size, kind), stream); });
}

cudaError_t cudaMemcpyPeer(void* to, int to_device, const void* from, int from_device, size_t size) {
  return entry([&] {
    require_devices(to_device, from_device);
    run_now(linear(to, from, size, cudaMemcpyDeviceToDevice));
  });
}

cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device, size_t size,
                                cudaStream_t stream) {
  return entry([&] {
    require_devices(to_device, from_device);
    enqueue(linear(to, from, size, cudaMemcpyDeviceToDevice), stream);
  });
}

cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                         cudaMemcpyKind kind) {
  return entry([&] { run_now(rows(to, to_pitch, from, from_pitch, width, height, kind)); });
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  return entry([&] { enqueue(rows(to, to_pitch, from, from_pitch, width, height, kind), stream); });
}

cudaError_t cudaMemcpy3D(const cudaMemcpy3DParms* parameters) {
  return entry([&] { run_now(planes(parameters)); });
}

cudaError_t cudaMemcpy3DAsync(const cudaMemcpy3DParms* parameters, cudaStream_t stream) {
  return entry([&] { enqueue(planes(parameters), stream); });
}

cudaError_t cudaMemcpy3DPeer(const cudaMemcpy3DPeerParms* parameters) {
  return entry([&] { run_now(planes(parameters, cudaMemcpyDeviceToDevice)); });
}

cudaError_t cudaMemcpy3DPeerAsync(const cudaMemcpy3DPeerParms* parameters, cudaStream_t stream) {
  return entry([&] { enqueue(planes(parameters, cudaMemcpyDeviceToDevice), stream); });
}

cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* from, size_t size, size_t offset, cudaMemcpyKind kind) {
  return entry([&] { run_now(symbol_copy(symbol, from, size, offset, kind, Direction::kToSymbol)); });
}

cudaError_t cudaMemcpyToSymbolAsync(const void* symbol, const void* from, size_t size, size_t offset,
                                    cudaMemcpyKind kind, cudaStream_t stream) {
  return entry([&] { enqueue(symbol_copy(symbol, from, size, offset, kind, Direction::kToSymbol), stream); });
}

cudaError_t cudaMemcpyFromSymbol(void* to, const void* symbol, size_t size, size_t offset, cudaMemcpyKind kind) {
  return entry([&] { run_now(symbol_copy(symbol, to, size, offset, kind, Direction::kFromSymbol)); });
}

cudaError_t cudaMemcpyFromSymbolAsync(void* to, const void* symbol, size_t size, size_t offset, cudaMemcpyKind kind,
                                      cudaStream_t stream) {
  return entry([&] { enqueue(symbol_copy(symbol, to, size, offset, kind, Direction::kFromSymbol), stream); });
}

// ---- fills ----

cudaError_t cudaMemset(void* to, int value, size_t size) {
  return entry([&] { run_now(fill_rows(to, size, value, size, 1)); });
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t size, cudaStream_t stream) {
  return entry([&] { enqueue(fill_rows(to, size, value, size, 1), stream); });
}

cudaError_t cudaMemset2D(void* to, size_t pitch, int value, size_t width, size_t height) {
  return entry([&] { run_now(fill_rows(to, pitch, value, width, height)); });
}

cudaError_t cudaMemset2DAsync(void* to, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream) {
  return entry([&] { enqueue(fill_rows(to, pitch, value, width, height), stream); });
}

cudaError_t cudaMemset3D(cudaPitchedPtr to, int value, cudaExtent extent) {
  return entry([&] { run_now(fill_planes(to, value, extent)); });
}

cudaError_t cudaMemset3DAsync(cudaPitchedPtr to, int value, cudaExtent extent, cudaStream_t stream) {
  return entry([&] { enqueue(fill_planes(to, value, extent), stream); });
}
