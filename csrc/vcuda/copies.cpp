// See copies.h. One form of copy and one of fill serve all the functions of the API.
#include "copies.h"

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

Place place_in(const cudaPitchedPtr& memory, const cudaPos& at) {
  const size_t plane = memory.pitch * memory.ysize;
  return {bytes(memory.ptr) + at.z * plane + at.y * memory.pitch + at.x, memory.pitch, plane};
}

Copy row_copy(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
              cudaMemcpyKind kind) {
  return {{bytes(to), to_pitch, 0}, {bytes(from), from_pitch, 0}, {width, height}, kind};
}

// Of cudaMemcpy3DParms and cudaMemcpy3DPeerParms.
template <class Parameters>
Copy box_copy(const Parameters& p, cudaMemcpyKind kind) {
  require(!p.srcArray && !p.dstArray, cudaErrorNotSupported);
  const Box box{p.extent.width, p.extent.height, p.extent.depth};
  return {place_in(p.dstPtr, p.dstPos), place_in(p.srcPtr, p.srcPos), box, kind};
}

Copy box_copy(const cudaMemcpy3DPeerParms* parameters) {
  return box_copy(require_pointer(parameters), cudaMemcpyDeviceToDevice);
}

char* place_in_symbol(const void* variable, size_t size, size_t offset) {
  const Symbol symbol = symbol_of(variable);
  require(offset <= symbol.size && size <= symbol.size - offset, cudaErrorInvalidValue);
  return symbol.place + offset;
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

Copy linear_copy(void* to, const void* from, size_t size, cudaMemcpyKind kind) {
  return {{bytes(to), size, size}, {bytes(from), size, size}, {size}, kind};
}

Copy box_copy(const cudaMemcpy3DParms* parameters) { return box_copy(require_pointer(parameters), parameters->kind); }

Copy copy_to_symbol(const void* symbol, const void* from, size_t size, size_t offset, cudaMemcpyKind kind) {
  return linear_copy(place_in_symbol(symbol, size, offset), from, size, kind);
}

Copy copy_from_symbol(void* to, const void* symbol, size_t size, size_t offset, cudaMemcpyKind kind) {
  return linear_copy(to, place_in_symbol(symbol, size, offset), size, kind);
}

}  // namespace flopcuda::vcuda

using namespace flopcuda::vcuda;

// ---- copies ----

cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind kind) {
  return entry([&] { run_now(linear_copy(to, from, size, kind)); });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind kind, cudaStream_t stream) {
  return entry([&] { enqueue(linear_copy(to, from, size, kind), stream); });
}

cudaError_t cudaMemcpyPeer(void* to, int to_device, const void* from, int from_device, size_t size) {
  return entry([&] {
    require_devices(to_device, from_device);
    run_now(linear_copy(to, from, size, cudaMemcpyDeviceToDevice));
  });
}

cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device, size_t size,
                                cudaStream_t stream) {
  return entry([&] {
    require_devices(to_device, from_device);
    enqueue(linear_copy(to, from, size, cudaMemcpyDeviceToDevice), stream);
  });
}

cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                         cudaMemcpyKind kind) {
  return entry([&] { run_now(row_copy(to, to_pitch, from, from_pitch, width, height, kind)); });
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  return entry([&] { enqueue(row_copy(to, to_pitch, from, from_pitch, width, height, kind), stream); });
}

cudaError_t cudaMemcpy3D(const cudaMemcpy3DParms* parameters) {
  return entry([&] { run_now(box_copy(parameters)); });
}

cudaError_t cudaMemcpy3DAsync(const cudaMemcpy3DParms* parameters, cudaStream_t stream) {
  return entry([&] { enqueue(box_copy(parameters), stream); });
}

cudaError_t cudaMemcpy3DPeer(const cudaMemcpy3DPeerParms* parameters) {
  return entry([&] { run_now(box_copy(parameters)); });
}

cudaError_t cudaMemcpy3DPeerAsync(const cudaMemcpy3DPeerParms* parameters, cudaStream_t stream) {
  return entry([&] { enqueue(box_copy(parameters), stream); });
}

cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* from, size_t size, size_t offset, cudaMemcpyKind kind) {
  return entry([&] { run_now(copy_to_symbol(symbol, from, size, offset, kind)); });
}

cudaError_t cudaMemcpyToSymbolAsync(const void* symbol, const void* from, size_t size, size_t offset,
                                    cudaMemcpyKind kind, cudaStream_t stream) {
  return entry([&] { enqueue(copy_to_symbol(symbol, from, size, offset, kind), stream); });
}

cudaError_t cudaMemcpyFromSymbol(void* to, const void* symbol, size_t size, size_t offset, cudaMemcpyKind kind) {
  return entry([&] { run_now(copy_from_symbol(to, symbol, size, offset, kind)); });
}

cudaError_t cudaMemcpyFromSymbolAsync(void* to, const void* symbol, size_t size, size_t offset, cudaMemcpyKind kind,
                                      cudaStream_t stream) {
  return entry([&] { enqueue(copy_from_symbol(to, symbol, size, offset, kind), stream); });
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
