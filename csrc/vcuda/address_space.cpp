// See address_space.h.
#include "address_space.h"

#include <sys/mman.h>

#include <algorithm>
#include <string>

#include "error.h"
#include "pools.h"
#include "settings.h"

namespace flopcuda::vcuda {
namespace {

constexpr size_t kGranularity = 512;  // by which a device's memory is used up

size_t round_up(size_t size, size_t multiple) { return (size + multiple - 1) / multiple * multiple; }

// Pages of their own: untouched ones cost nothing, and what is freed is gone.
std::shared_ptr<void> map_pages(size_t size) {
  void* place = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  require(place != MAP_FAILED, cudaErrorMemoryAllocation);
  return {place, [size](void* pages) { munmap(pages, size); }};
}

std::string label_of(const Block& block) {
  switch (block.kind) {
    case MemoryKind::kDevice:
      return "device memory";
    case MemoryKind::kPinned:
      return "pinned host memory";
    case MemoryKind::kRegistered:
      return "registered host memory";
    case MemoryKind::kManaged:
      return "managed memory";
    default:
      return "variable '" + block.name + "'";
  }
}

}  // namespace

AddressSpace& address_space() { return immortal<AddressSpace>(); }

Block AddressSpace::reserve(size_t size, int device, std::shared_ptr<Pool> pool) {
  Block block;
  block.storage = map_pages(size);
  block.begin = reinterpret_cast<uint64_t>(block.storage.get());
  block.size = size;
  block.device = device;
  block.pool = std::move(pool);
  return block;
}

Block AddressSpace::allocate(MemoryKind kind, size_t size, int device, unsigned flags, std::shared_ptr<Pool> pool) {
  // Before the pages are mapped, as what exceeds the address space would fail there in another way.
  require(kind != MemoryKind::kDevice || size <= settings().memory, cudaErrorMemoryAllocation);
  Block block = reserve(size, device, std::move(pool));
  block.kind = kind;
  block.flags = flags;
  add(block);
  return block;
}

void AddressSpace::add(Block block) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (block.kind == MemoryKind::kDevice) {
    const size_t bytes = round_up(block.size, kGranularity);
    require(bytes <= settings().memory - used_[block.device], cudaErrorMemoryAllocation);
    used_[block.device] += bytes;
    if (block.pool) block.pool->use(bytes);
  }
  block.id = next_id_++;
  expose(block);
  blocks_.insert_or_assign(block.begin, std::move(block));
}

Block AddressSpace::take(Blocks::iterator position) {
  Block block = std::move(position->second);
  blocks_.erase(position);
  conceal(block);
  if (block.kind == MemoryKind::kDevice) {
    const size_t bytes = round_up(block.size, kGranularity);
    used_[block.device] -= bytes;
    if (block.pool) block.pool->give_back(bytes);
  }
  return block;
}

std::optional<Block> AddressSpace::find(const void* address) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const uint64_t value = reinterpret_cast<uint64_t>(address);
  auto after = blocks_.upper_bound(value);
  if (after == blocks_.begin()) return std::nullopt;
  const Block& block = std::prev(after)->second;
  if (value >= block.end()) return std::nullopt;
  return block;
}

size_t AddressSpace::used(int device) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = used_.find(device);
  return found == used_.end() ? 0 : found->second;
}

void AddressSpace::release_all(int device) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (auto entry = blocks_.begin(); entry != blocks_.end();) {
    const auto next = std::next(entry);
    if (entry->second.device == device && entry->second.kind != MemoryKind::kRegistered) take(entry);
    entry = next;
  }
}

// ---- access ----

bool AddressSpace::may_access(int device, const Block& block) const {
  if (!block.is_on_device() || block.device == device) return true;
  return block.pool ? block.pool->is_accessible_from(device) : peers_.count({device, block.device}) > 0;
}

void AddressSpace::expose(const Block& block) {
  for (const auto& device : devices()) {
    if (may_access(device->ordinal, block)) {
      device->memory.add({block.begin, block.end(), block.writable, label_of(block)});
    }
  }
}

void AddressSpace::conceal(const Block& block) {
  for (const auto& device : devices()) {
    if (may_access(device->ordinal, block)) device->memory.remove(block.begin);
  }
}

template <class Change>
void AddressSpace::change_access(Change change) {
  for (const auto& [begin, block] : blocks_) conceal(block);
  change();
  for (const auto& [begin, block] : blocks_) expose(block);
}

bool AddressSpace::grant_access(int device, int to_memory_of) {
  const std::lock_guard<std::mutex> lock(mutex_);
  bool changed = false;
  change_access([&] { changed = peers_.emplace(device, to_memory_of).second; });
  return changed;
}

bool AddressSpace::revoke_access(int device, int to_memory_of) {
  const std::lock_guard<std::mutex> lock(mutex_);
  bool changed = false;
  change_access([&] { changed = peers_.erase({device, to_memory_of}) > 0; });
  return changed;
}

void AddressSpace::set_pool_access(const std::shared_ptr<Pool>& pool, int device, bool granted) {
  const std::lock_guard<std::mutex> lock(mutex_);
  change_access([&] { pool->set_access(device, granted); });
}

}  // namespace flopcuda::vcuda
