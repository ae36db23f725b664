// Numbers of 16 bits as they lie in memory. The kernels compute in float, which holds each of them exactly.
#pragma once

#include <cstdint>

namespace flopcuda::cpu {

struct BFloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

}  // namespace flopcuda::cpu
