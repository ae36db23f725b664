// Opaque handles of the API: which exist, and the objects they stand for.
#pragma once

#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "error.h"

namespace flopcuda::vcuda {

template <class Object>
class HandleTable {
 public:
  template <class Handle>
  Handle add(std::shared_ptr<Object> object) {
    const std::lock_guard<std::mutex> lock(mutex_);
    Object* const address = object.get();
    objects_.emplace(address, std::move(object));
    return reinterpret_cast<Handle>(address);
  }

  // Null if there is none.
  std::shared_ptr<Object> find(const void* handle) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = objects_.find(handle);
    return found == objects_.end() ? nullptr : found->second;
  }

  std::shared_ptr<Object> get(const void* handle, cudaError_t otherwise = cudaErrorInvalidResourceHandle) const {
    std::shared_ptr<Object> found = find(handle);
    require(found != nullptr, otherwise);
    return found;
  }

  // The object, no longer known; null if it was not.
  std::shared_ptr<Object> forget(const void* handle) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = objects_.find(handle);
    if (found == objects_.end()) return nullptr;
    std::shared_ptr<Object> object = std::move(found->second);
    objects_.erase(found);
    return object;
  }

  std::shared_ptr<Object> remove(const void* handle, cudaError_t otherwise = cudaErrorInvalidResourceHandle) {
    std::shared_ptr<Object> object = forget(handle);
    require(object != nullptr, otherwise);
    return object;
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<const void*, std::shared_ptr<Object>> objects_;
};

}  // namespace flopcuda::vcuda
