// Small properties of decoded memory instructions.
#pragma once

#include <cstdint>

namespace flopcuda::ptxvm {

enum AddressFlags : uint8_t {
  kWideAddress = 1,    // the address register has 64 bits
  kFrameRelative = 2,  // the offset counts from the thread's frame of local memory
  kStrong = 4,         // .relaxed, .acquire or .release: no race with another of the kind
};

enum class AtomicOp : uint8_t { kExchange, kCompareSwap, kAnd, kOr, kXor, kAdd, kInc, kDec, kMin, kMax };

}  // namespace flopcuda::ptxvm
