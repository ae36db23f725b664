// Errors: thrown inside, turned into a status at the edge of the API, and kept as the thread's last one.
#pragma once

#include <new>

#include "cuda_api.h"

namespace flopcuda::vcuda {

struct Error {
  cudaError_t code;
};

[[noreturn]] inline void fail(cudaError_t code) { throw Error{code}; }
inline void require(bool condition, cudaError_t otherwise) {
  if (!condition) fail(otherwise);
}
template <class T>
T& require_pointer(T* pointer) {
  require(pointer != nullptr, cudaErrorInvalidValue);
  return *pointer;
}

// Makes it the thread's last error unless it is success.
cudaError_t record(cudaError_t code);

// What no call gets past: a fault of the current device, or a fork since the first call.
cudaError_t lasting_error();

namespace detail {
template <class Body>
cudaError_t status_of(Body& body) {
  try {
    body();
    return cudaSuccess;
  } catch (const Error& error) {
    return error.code;
  } catch (const std::bad_alloc&) {
    return cudaErrorMemoryAllocation;
  }
}
}  // namespace detail

// The frame of an API function: runs the body unless an earlier fault forbids it.
template <class Body>
cudaError_t entry(Body body) {
  if (const cudaError_t lasting = lasting_error()) return record(lasting);
  return record(detail::status_of(body));
}

// The same for what works after a fault, too.
template <class Body>
cudaError_t entry_despite_fault(Body body) {
  return record(detail::status_of(body));
}

}  // namespace flopcuda::vcuda
