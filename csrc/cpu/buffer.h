// Uninitialised arrays aligned to a cache line, which is also the widest vector.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace flopcuda::cpu {

constexpr int64_t kCacheLineBytes = 64;

// What one thread writes is this far from what another one reads or writes: a line may be fetched with its neighbour.
constexpr int64_t kThreadAlignment = 2 * kCacheLineBytes;

template <class T>
class AlignedArray {
 public:
  AlignedArray() = default;
  explicit AlignedArray(int64_t size)
      : data_(
            static_cast<T*>(::operator new(static_cast<size_t>(size) * sizeof(T), std::align_val_t{kCacheLineBytes}))) {
  }

  T* data() const { return data_.get(); }
  T& operator[](int64_t i) const { return data_.get()[i]; }

 private:
  struct Delete {
    void operator()(T* data) const { ::operator delete(data, std::align_val_t{kCacheLineBytes}); }
  };
  std::unique_ptr<T, Delete> data_;
};

}  // namespace flopcuda::cpu
