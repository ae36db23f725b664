// Allocation: device, pinned, registered and managed memory, and what pointers say of themselves.
#include <cstring>

#include "address_space.h"
#include "capture.h"
#include "device.h"
#include "error.h"
#include "pools.h"
#include "settings.h"

namespace flopcuda::vcuda {
namespace {

constexpr size_t kPitchAlignment = 512;

void* pointer_to(const Block& block) { return reinterpret_cast<void*>(block.begin); }

void* allocate(MemoryKind kind, size_t size, unsigned flags = 0) {
  forbid_while_capturing();
  if (size == 0) return nullptr;
  return pointer_to(address_space().allocate(kind, size, current_device().ordinal, flags));
}

// Waits for what runs, as the real one does.
template <class Predicate>
void release(void* place, Predicate is_fit, cudaError_t otherwise = cudaErrorInvalidValue) {
  forbid_while_capturing();
  if (!place) return;
  const std::lock_guard<std::mutex> lock(execution_mutex());
  require(address_space().remove(place, is_fit).has_value(), otherwise);
  give_up_graph_memory(place);
}

bool is_pinned(const Block& block) { return block.kind == MemoryKind::kPinned; }
bool is_registered(const Block& block) { return block.kind == MemoryKind::kRegistered; }
bool is_allocation(const Block& block) {
  return block.kind == MemoryKind::kDevice || block.kind == MemoryKind::kManaged;
}

size_t pitch_of(size_t width) { return (width + kPitchAlignment - 1) / kPitchAlignment * kPitchAlignment; }

cudaMemoryType type_of(const Block& block) {
  if (block.kind == MemoryKind::kManaged) return cudaMemoryTypeManaged;
  return block.is_on_device() ? cudaMemoryTypeDevice : cudaMemoryTypeHost;
}

cudaPointerAttributes attributes_of(const void* pointer) {
  cudaPointerAttributes result{};
  std::optional<Block> block = address_space().find(pointer);
  if (!block) block = find_of_graph(pointer);
  result.type = block ? type_of(*block) : cudaMemoryTypeUnregistered;
  result.device = block ? block->device : cudaInvalidDeviceId;
  if (block) result.devicePointer = const_cast<void*>(pointer);
  if (!block || !block->is_on_device()) result.hostPointer = const_cast<void*>(pointer);
  return result;
}

void require_location(const cudaMemLocation& location) {
  if (location.type == cudaMemLocationTypeDevice) device(location.id);
}

}  // namespace
}  // namespace flopcuda::vcuda

using namespace flopcuda::vcuda;

cudaError_t cudaMalloc(void** place, size_t size) {
  return entry([&] { require_pointer(place) = allocate(MemoryKind::kDevice, size); });
}

cudaError_t cudaMallocPitch(void** place, size_t* pitch, size_t width, size_t height) {
  return entry([&] {
    require(place && pitch, cudaErrorInvalidValue);
    *pitch = pitch_of(width);
    *place = allocate(MemoryKind::kDevice, *pitch * height);
  });
}

cudaError_t cudaMalloc3D(cudaPitchedPtr* place, cudaExtent extent) {
  return entry([&] {
    const size_t pitch = pitch_of(extent.width);
    void* memory = allocate(MemoryKind::kDevice, pitch * extent.height * extent.depth);
    require_pointer(place) = {memory, pitch, extent.width, extent.height};
  });
}

cudaError_t cudaMallocManaged(void** place, size_t size, unsigned flags) {
  return entry([&] {
    require(size > 0 && (flags == cudaMemAttachGlobal || flags == cudaMemAttachHost), cudaErrorInvalidValue);
    require_pointer(place) = allocate(MemoryKind::kManaged, size, flags);
  });
}

cudaError_t cudaFree(void* place) {
  return entry([&] { release(place, is_allocation); });
}

cudaError_t cudaHostAlloc(void** place, size_t size, unsigned flags) {
  return entry([&] {
    const unsigned known = cudaHostAllocPortable | cudaHostAllocMapped | cudaHostAllocWriteCombined;
    require((flags & ~known) == 0, cudaErrorInvalidValue);
    require_pointer(place) = allocate(MemoryKind::kPinned, size, flags);
  });
}

cudaError_t cudaMallocHost(void** place, size_t size) { return cudaHostAlloc(place, size, cudaHostAllocDefault); }

cudaError_t cudaFreeHost(void* place) {
  return entry([&] { release(place, is_pinned); });
}

cudaError_t cudaHostRegister(void* place, size_t size, unsigned flags) {
  return entry([&] {
    forbid_while_capturing();
    require(place && size > 0, cudaErrorInvalidValue);
    const auto* last = static_cast<const char*>(place) + size - 1;
    require(!address_space().find(place) && !address_space().find(last), cudaErrorHostMemoryAlreadyRegistered);
    Block block;
    block.begin = reinterpret_cast<uint64_t>(place);
    block.size = size;
    block.kind = MemoryKind::kRegistered;
    block.device = current_device().ordinal;
    block.flags = flags;
    address_space().add(std::move(block));
  });
}

cudaError_t cudaHostUnregister(void* place) {
  return entry([&] {
    require(place != nullptr, cudaErrorInvalidValue);
    release(place, is_registered, cudaErrorHostMemoryNotRegistered);
  });
}

cudaError_t cudaHostGetDevicePointer(void** on_device, void* host, unsigned flags) {
  return entry([&] {
    require(on_device && flags == 0, cudaErrorInvalidValue);
    const std::optional<Block> block = address_space().find(host);
    require(block && !block->is_on_device(), cudaErrorInvalidValue);
    *on_device = host;
  });
}

cudaError_t cudaHostGetFlags(unsigned* flags, void* host) {
  return entry([&] {
    const std::optional<Block> block = address_space().find(host);
    require(block && !block->is_on_device(), cudaErrorInvalidValue);
    require_pointer(flags) = block->flags | cudaHostAllocMapped;
  });
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return entry([&] {
    require(free && total, cudaErrorInvalidValue);
    *total = settings().memory;
    *free = *total - address_space().used(current_device().ordinal);
  });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  return entry([&] { require_pointer(attributes) = attributes_of(pointer); });
}

// ---- managed memory: it is everywhere already ----

cudaError_t cudaMemPrefetchAsync(const void* place, size_t, cudaMemLocation location, unsigned, cudaStream_t) {
  return entry([&] {
    require(address_space().find(place).has_value(), cudaErrorInvalidValue);
    require_location(location);
  });
}

cudaError_t cudaMemAdvise(const void* place, size_t, cudaMemoryAdvise, cudaMemLocation location) {
  return entry([&] {
    require(address_space().find(place).has_value(), cudaErrorInvalidValue);
    require_location(location);
  });
}

cudaError_t cudaStreamAttachMemAsync(cudaStream_t, void* place, size_t, unsigned) {
  return entry([&] {
    const std::optional<Block> block = address_space().find(place);
    require(block && block->kind == MemoryKind::kManaged, cudaErrorInvalidValue);
  });
}
