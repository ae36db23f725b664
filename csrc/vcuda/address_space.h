// All memory that CUDA knows: allocations of the devices and of the host, and which device's kernels may touch which.
//
// Everything lives in the host's memory, under one address everywhere. A device's ptxvm::MemoryMap lists exactly the
// live allocations it has access to, to the byte, so the machine finds every access outside them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "device.h"

namespace flopcuda::vcuda {

enum class MemoryKind : uint8_t {
  kDevice,
  kPinned,      // the host's, by cudaHostAlloc
  kRegistered,  // the host's own, by cudaHostRegister
  kManaged,
  kVariable,  // __device__ and __constant__, of a module
};

struct Pool;

struct Block {
  uint64_t begin = 0;
  size_t size = 0;
  MemoryKind kind = MemoryKind::kDevice;
  int device = 0;
  unsigned flags = 0;
  bool writable = true;           // for kernels
  std::string name;               // of a variable
  std::shared_ptr<Pool> pool;     // of cudaMallocAsync
  std::shared_ptr<void> storage;  // null for what others own
  uint64_t id = 0;                // never the same for two

  uint64_t end() const { return begin + size; }
  bool holds(uint64_t address, size_t bytes) const { return address >= begin && bytes <= end() - address; }
  bool is_on_device() const { return kind == MemoryKind::kDevice || kind == MemoryKind::kVariable; }
};

class AddressSpace {
 public:
  // New memory, zero-filled. A device's counts against its size: cudaErrorMemoryAllocation.
  Block allocate(MemoryKind kind, size_t size, int device, unsigned flags = 0, std::shared_ptr<Pool> pool = nullptr);
  // Memory that was reserved, or is others'.
  void add(Block block);
  // New memory that is not known yet, for add().
  Block reserve(size_t size, int device, std::shared_ptr<Pool> pool);

  // The block that begins there, no longer known; nothing if there is none or predicate(block) is false.
  template <class Predicate>
  std::optional<Block> remove(const void* begin, Predicate predicate) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = blocks_.find(reinterpret_cast<uint64_t>(begin));
    if (found == blocks_.end() || !predicate(found->second)) return std::nullopt;
    return take(found);
  }

  // The block that holds this address.
  std::optional<Block> find(const void* address) const;

  size_t used(int device) const;
  void release_all(int device);

  // Peer access: false if it was so already. Nothing may run meanwhile: execution_mutex().
  bool grant_access(int device, int to_memory_of);
  bool revoke_access(int device, int to_memory_of);
  // The same for one pool's memory.
  void set_pool_access(const std::shared_ptr<Pool>& pool, int device, bool granted);

 private:
  using Blocks = std::map<uint64_t, Block>;
  Block take(Blocks::iterator position);
  bool may_access(int device, const Block& block) const;
  void expose(const Block& block);
  void conceal(const Block& block);
  template <class Change>
  void change_access(Change change);

  mutable std::mutex mutex_;
  Blocks blocks_;
  std::map<int, size_t> used_;
  std::set<std::pair<int, int>> peers_;  // (device, whose memory it may touch)
  uint64_t next_id_ = 1;
};

AddressSpace& address_space();

}  // namespace flopcuda::vcuda
