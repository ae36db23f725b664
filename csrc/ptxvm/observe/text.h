// How messages write numbers.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

namespace flopcuda::ptxvm {

inline std::string hexadecimal(uint64_t value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "0x%llx", static_cast<unsigned long long>(value));
  return buffer;
}

}  // namespace flopcuda::ptxvm
