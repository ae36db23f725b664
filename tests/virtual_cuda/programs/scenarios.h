// A program of several scenarios, one of which is run: the one that the first argument names.
#pragma once

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

inline std::map<std::string, void (*)()>& all_scenarios() {
  static std::map<std::string, void (*)()> all;
  return all;
}

#define SCENARIO(name)                                              \
  static void name();                                               \
  static const bool name##_added = (all_scenarios()[#name] = name); \
  static void name()

[[noreturn]] inline void stop(int line, const char* text, const char* instead) {
  std::printf("line %d: %s: %s\n", line, text, instead);
  std::exit(1);
}

inline void expect(cudaError_t status, cudaError_t wanted, int line, const char* text) {
  if (status != wanted) stop(line, text, cudaGetErrorName(status));
}

inline void expect(bool condition, int line, const char* text) {
  if (!condition) stop(line, text, "is not so");
}

// The call succeeds; it fails in this way; it is so.
#define CHECK(...) expect(__VA_ARGS__, cudaSuccess, __LINE__, #__VA_ARGS__)
#define EXPECT_ERROR(call, error) expect(call, error, __LINE__, #call)
#define EXPECT(...) expect(__VA_ARGS__, __LINE__, #__VA_ARGS__)

// Memory of the device, filled from a list, read back as one.
template <class T>
struct Array {
  explicit Array(const std::vector<T>& values) : size(values.size()) {
    CHECK(cudaMalloc(&data, size * sizeof(T)));
    set(values);
  }
  ~Array() { cudaFree(data); }
  Array(const Array&) = delete;
  void set(const std::vector<T>& values) {
    CHECK(cudaMemcpy(data, values.data(), size * sizeof(T), cudaMemcpyHostToDevice));
  }
  std::vector<T> get() const {
    std::vector<T> values(size);
    CHECK(cudaMemcpy(values.data(), data, size * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }
  T* data = nullptr;
  size_t size;
};

int main(int count, char** arguments) {
  const auto found = all_scenarios().find(count > 1 ? arguments[1] : "");
  if (found == all_scenarios().end()) return 2;
  found->second();
}
