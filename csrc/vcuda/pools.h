// Memory pools of cudaMallocAsync. What is freed is given back at once, so that what is reserved is what is in use.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>

#include "address_space.h"
#include "cuda_api.h"

namespace flopcuda::vcuda {

struct Pool {
  explicit Pool(int device) : device(device) {}

  const int device;

  void use(size_t bytes);
  void give_back(size_t bytes);
  uint64_t in_use() const;
  uint64_t most_in_use() const;
  void forget_most();

  // Attributes that are kept and steer nothing: reuse policies and the release threshold.
  uint64_t hint(cudaMemPoolAttr attribute) const;
  void set_hint(cudaMemPoolAttr attribute, uint64_t value);

  bool is_accessible_from(int other) const;
  void set_access(int other, bool granted);

 private:
  mutable std::mutex mutex_;
  uint64_t in_use_ = 0, most_ = 0;
  std::map<cudaMemPoolAttr, uint64_t> hints_{{cudaMemPoolReuseFollowEventDependencies, 1},
                                             {cudaMemPoolReuseAllowOpportunistic, 1},
                                             {cudaMemPoolReuseAllowInternalDependencies, 1},
                                             {cudaMemPoolAttrReleaseThreshold, 0}};
  std::set<int> accessible_from_;
};

// The one that cudaMallocAsync takes from.
std::shared_ptr<Pool> current_pool(int device);

// What the memory nodes of graphs take from.
std::shared_ptr<Pool> graph_pool(int device);
// Memory for such a node: its address stays the same, but it is there only from a launch on.
Block reserve_for_graph(size_t size, int device);
// It was freed, now or in a graph; false if that had been so already, or if it is none.
bool give_up_graph_memory(const void* place);
// The memory of a graph that holds the address, be it there or not; without its storage.
std::optional<Block> find_of_graph(const void* address);

}  // namespace flopcuda::vcuda
