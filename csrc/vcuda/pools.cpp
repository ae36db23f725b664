// Memory pools and stream-ordered allocation.
#include "pools.h"

#include <utility>
#include <vector>

#include "address_space.h"
#include "capture.h"
#include "device.h"
#include "error.h"
#include "handles.h"
#include "streams.h"

namespace flopcuda::vcuda {
namespace {

struct Pools {
  Pools() {
    for (const auto& device : devices()) {
      defaults.push_back(std::make_shared<Pool>(device->ordinal));
      table.add<cudaMemPool_t>(defaults.back());
      of_graphs.push_back(std::make_shared<Pool>(device->ordinal));
    }
    current = defaults;
  }

  // Lives as long as nodes refer to it, and until it was freed once: who captured the allocation has the address.
  struct GraphMemory {
    Block block;  // without its storage
    std::weak_ptr<void> storage;
    std::shared_ptr<void> until_freed;
  };

  HandleTable<Pool> table;
  std::vector<std::shared_ptr<Pool>> defaults, of_graphs;  // by device
  std::mutex mutex;
  std::vector<std::shared_ptr<Pool>> current;
  std::map<uint64_t, GraphMemory> graph_memory;  // by address
};

Pools& pools() { return immortal<Pools>(); }
std::shared_ptr<Pool> pool_of(cudaMemPool_t handle) { return pools().table.get(handle, cudaErrorInvalidValue); }
cudaMemPool_t handle_of(const std::shared_ptr<Pool>& pool) { return reinterpret_cast<cudaMemPool_t>(pool.get()); }

bool is_flag(cudaMemPoolAttr attribute) {
  return attribute == cudaMemPoolReuseFollowEventDependencies || attribute == cudaMemPoolReuseAllowOpportunistic ||
         attribute == cudaMemPoolReuseAllowInternalDependencies;
}

// The value of an attribute is an int or a 64-bit number, by attribute.
uint64_t read_value(cudaMemPoolAttr attribute, const void* value) {
  require(value != nullptr, cudaErrorInvalidValue);
  return is_flag(attribute) ? static_cast<uint64_t>(*static_cast<const int*>(value))
                            : *static_cast<const uint64_t*>(value);
}

void write_value(cudaMemPoolAttr attribute, void* value, uint64_t number) {
  require(value != nullptr, cudaErrorInvalidValue);
  if (is_flag(attribute)) {
    *static_cast<int*>(value) = static_cast<int>(number);
  } else {
    *static_cast<uint64_t*>(value) = number;
  }
}

void allocate_on(Stream& stream, void** place, size_t size, const std::shared_ptr<Pool>& pool) {
  require_pointer(place) = nullptr;
  if (size == 0) return;
  Allocate allocation{is_capturing(stream) ? reserve_for_graph(size, pool->device)
                                           : address_space().reserve(size, pool->device, pool)};
  *place = allocation.place();
  submit(stream, std::move(allocation));
}

size_t device_at(const cudaMemLocation* location, cudaMemAllocationType type) {
  require(location && type == cudaMemAllocationTypePinned, cudaErrorInvalidValue);
  require(location->type == cudaMemLocationTypeDevice, cudaErrorNotSupported);
  return static_cast<size_t>(device(location->id).ordinal);
}

void set_current_pool(size_t device, std::shared_ptr<Pool> pool) {
  require(pool->device == static_cast<int>(device), cudaErrorInvalidDevice);
  Pools& all = pools();
  const std::lock_guard<std::mutex> lock(all.mutex);
  all.current[device] = std::move(pool);
}

}  // namespace

void Pool::use(size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  in_use_ += bytes;
  most_ = std::max(most_, in_use_);
}

void Pool::give_back(size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  in_use_ -= bytes;
}

uint64_t Pool::in_use() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return in_use_;
}

uint64_t Pool::most_in_use() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return most_;
}

void Pool::forget_most() {
  const std::lock_guard<std::mutex> lock(mutex_);
  most_ = in_use_;
}

uint64_t Pool::hint(cudaMemPoolAttr attribute) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = hints_.find(attribute);
  require(found != hints_.end(), cudaErrorInvalidValue);
  return found->second;
}

void Pool::set_hint(cudaMemPoolAttr attribute, uint64_t value) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = hints_.find(attribute);
  require(found != hints_.end(), cudaErrorInvalidValue);
  found->second = value;
}

bool Pool::is_accessible_from(int other) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return other == device || accessible_from_.count(other) > 0;
}

void Pool::set_access(int other, bool granted) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (granted) {
    accessible_from_.insert(other);
  } else {
    accessible_from_.erase(other);
  }
}

std::shared_ptr<Pool> current_pool(int device) {
  Pools& all = pools();
  const std::lock_guard<std::mutex> lock(all.mutex);
  return all.current[static_cast<size_t>(device)];
}

std::shared_ptr<Pool> graph_pool(int device) { return pools().of_graphs[static_cast<size_t>(device)]; }

Block reserve_for_graph(size_t size, int device) {
  Block block = address_space().reserve(size, device, graph_pool(device));
  Pools& all = pools();
  const std::lock_guard<std::mutex> lock(all.mutex);
  for (auto entry = all.graph_memory.begin(); entry != all.graph_memory.end();) {
    entry = entry->second.storage.expired() ? all.graph_memory.erase(entry) : std::next(entry);
  }
  Pools::GraphMemory& known = all.graph_memory[block.begin];
  known = {block, block.storage, block.storage};
  known.block.storage = nullptr;
  return block;
}

bool give_up_graph_memory(const void* place) {
  Pools& all = pools();
  const std::lock_guard<std::mutex> lock(all.mutex);
  const auto found = all.graph_memory.find(reinterpret_cast<uint64_t>(place));
  return found != all.graph_memory.end() && std::exchange(found->second.until_freed, nullptr);
}

std::optional<Block> find_of_graph(const void* address) {
  Pools& all = pools();
  const std::lock_guard<std::mutex> lock(all.mutex);
  const uint64_t value = reinterpret_cast<uint64_t>(address);
  const auto after = all.graph_memory.upper_bound(value);
  if (after == all.graph_memory.begin()) return std::nullopt;
  const Pools::GraphMemory& known = std::prev(after)->second;
  if (value >= known.block.end() || known.storage.expired()) return std::nullopt;
  return known.block;
}

}  // namespace flopcuda::vcuda

using namespace flopcuda::vcuda;

// ---- allocation ----

cudaError_t cudaMallocAsync(void** place, size_t size, cudaStream_t handle) {
  return entry([&] {
    const std::shared_ptr<Stream> stream = stream_of(handle);
    allocate_on(*stream, place, size, current_pool(stream->device.ordinal));
  });
}

cudaError_t cudaMallocFromPoolAsync(void** place, size_t size, cudaMemPool_t pool, cudaStream_t stream) {
  return entry([&] { allocate_on(*stream_of(stream), place, size, pool_of(pool)); });
}

cudaError_t cudaFreeAsync(void* place, cudaStream_t stream) {
  return entry([&] {
    if (!place) return;
    submit(*stream_of(stream), Release{place});
    give_up_graph_memory(place);  // If a graph is to free it, its nodes keep it until then.
  });
}

// ---- pools ----

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int ordinal) {
  return entry(
      [&] { require_pointer(pool) = handle_of(pools().defaults[static_cast<size_t>(device(ordinal).ordinal)]); });
}

cudaError_t cudaDeviceGetMemPool(cudaMemPool_t* pool, int ordinal) {
  return entry([&] { require_pointer(pool) = handle_of(current_pool(device(ordinal).ordinal)); });
}

cudaError_t cudaDeviceSetMemPool(int ordinal, cudaMemPool_t pool) {
  return entry([&] { set_current_pool(static_cast<size_t>(device(ordinal).ordinal), pool_of(pool)); });
}

// The same by place. Pools are of devices' memory only.
cudaError_t cudaMemGetDefaultMemPool(cudaMemPool_t* pool, cudaMemLocation* location, cudaMemAllocationType type) {
  return entry([&] { require_pointer(pool) = handle_of(pools().defaults[device_at(location, type)]); });
}

cudaError_t cudaMemGetMemPool(cudaMemPool_t* pool, cudaMemLocation* location, cudaMemAllocationType type) {
  return entry([&] { require_pointer(pool) = handle_of(current_pool(static_cast<int>(device_at(location, type)))); });
}

cudaError_t cudaMemSetMemPool(cudaMemLocation* location, cudaMemAllocationType type, cudaMemPool_t pool) {
  return entry([&] { set_current_pool(device_at(location, type), pool_of(pool)); });
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  return entry([&] {
    require(pool && properties, cudaErrorInvalidValue);
    require(
        properties->allocType == cudaMemAllocationTypePinned && properties->location.type == cudaMemLocationTypeDevice,
        cudaErrorNotSupported);
    *pool = pools().table.add<cudaMemPool_t>(std::make_shared<Pool>(device(properties->location.id).ordinal));
  });
}

cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  return entry([&] {
    const std::shared_ptr<Pool> doomed = pool_of(pool);
    Pools& all = pools();
    const size_t device = static_cast<size_t>(doomed->device);
    require(all.defaults[device] != doomed, cudaErrorInvalidValue);
    all.table.remove(pool, cudaErrorInvalidValue);
    const std::lock_guard<std::mutex> lock(all.mutex);
    if (all.current[device] == doomed) all.current[device] = all.defaults[device];
  });
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t) {
  return entry([&] { pool_of(pool); });
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t handle, cudaMemPoolAttr attribute, void* value) {
  return entry([&] {
    const std::shared_ptr<Pool> pool = pool_of(handle);
    const uint64_t number = read_value(attribute, value);
    if (attribute == cudaMemPoolAttrReservedMemHigh || attribute == cudaMemPoolAttrUsedMemHigh) {
      require(number == 0, cudaErrorInvalidValue);
      pool->forget_most();
    } else {
      pool->set_hint(attribute, number);
    }
  });
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t handle, cudaMemPoolAttr attribute, void* value) {
  return entry([&] {
    const std::shared_ptr<Pool> pool = pool_of(handle);
    switch (attribute) {
      case cudaMemPoolAttrReservedMemCurrent:
      case cudaMemPoolAttrUsedMemCurrent:
        return write_value(attribute, value, pool->in_use());
      case cudaMemPoolAttrReservedMemHigh:
      case cudaMemPoolAttrUsedMemHigh:
        return write_value(attribute, value, pool->most_in_use());
      default:
        return write_value(attribute, value, pool->hint(attribute));
    }
  });
}

cudaError_t cudaMemPoolSetAccess(cudaMemPool_t handle, const cudaMemAccessDesc* descriptions, size_t count) {
  return entry([&] {
    require(descriptions || count == 0, cudaErrorInvalidValue);
    const std::shared_ptr<Pool> pool = pool_of(handle);
    const std::lock_guard<std::mutex> lock(execution_mutex());
    for (size_t i = 0; i < count; ++i) {
      const cudaMemAccessDesc& wanted = descriptions[i];
      require(wanted.location.type == cudaMemLocationTypeDevice, cudaErrorInvalidValue);
      const bool granted = wanted.flags == cudaMemAccessFlagsProtReadWrite;
      require(granted || device(wanted.location.id).ordinal != pool->device, cudaErrorInvalidDevice);
      address_space().set_pool_access(pool, device(wanted.location.id).ordinal, granted);
    }
  });
}

cudaError_t cudaMemPoolGetAccess(cudaMemAccessFlags* flags, cudaMemPool_t handle, cudaMemLocation* location) {
  return entry([&] {
    require(flags && location && location->type == cudaMemLocationTypeDevice, cudaErrorInvalidValue);
    const bool granted = pool_of(handle)->is_accessible_from(device(location->id).ordinal);
    *flags = granted ? cudaMemAccessFlagsProtReadWrite : cudaMemAccessFlagsProtNone;
  });
}
