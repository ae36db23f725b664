// The error functions of the API.
#include <pthread.h>

#include <atomic>

#include "device.h"
#include "error.h"
#include "vcuda.h"

namespace flopcuda::vcuda {
namespace {

struct ErrorName {
  cudaError_t code;
  const char* name;
  const char* sentence;
};

constexpr ErrorName kErrors[] = {
#define VCUDA_ERROR(name, sentence) {name, #name, sentence},
#include "error_names.inc"
#undef VCUDA_ERROR
};
constexpr const char* kUnknown = "unrecognized error code";

const ErrorName* find(cudaError_t code) {
  for (const ErrorName& error : kErrors) {
    if (error.code == code) return &error;
  }
  return nullptr;
}

thread_local cudaError_t last_error = cudaSuccess;

std::atomic<bool> forked{false};

// As with hardware, a device does not survive fork().
void watch_forks() {
  static const int once = pthread_atfork(nullptr, nullptr, [] { forked = true; });
  (void)once;
}

}  // namespace

cudaError_t record(cudaError_t code) {
  if (code != cudaSuccess) last_error = code;
  return code;
}

// Of a function that is not there.
int fail_unsupported(const char* name) {
  return record(static_cast<cudaError_t>(flopcuda_vcuda_remember_unsupported(name)));
}

cudaError_t lasting_error() {
  watch_forks();
  if (forked) return cudaErrorInitializationError;
  if (devices().empty()) return cudaErrorNoDevice;
  return current_device().fault.load();
}

}  // namespace flopcuda::vcuda

using namespace flopcuda::vcuda;

cudaError_t cudaGetLastError() {
  const cudaError_t code = cudaPeekAtLastError();
  last_error = cudaSuccess;
  return code;
}

cudaError_t cudaPeekAtLastError() {
  const cudaError_t fault = devices().empty() ? cudaSuccess : current_device().fault.load();
  return fault ? fault : last_error;
}

const char* cudaGetErrorName(cudaError_t code) {
  const ErrorName* known = find(code);
  return known ? known->name : kUnknown;
}

const char* cudaGetErrorString(cudaError_t code) {
  const ErrorName* known = find(code);
  return known ? known->sentence : kUnknown;
}

VCUDA_EXPORT void flopcuda_vcuda_fail(int error) {
  if (!devices().empty()) current_device().fault = static_cast<cudaError_t>(error);
}
