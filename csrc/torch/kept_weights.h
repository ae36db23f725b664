// Which weights stay packed from one call to the next, on the CPU: those that are seen again while a session is open.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "cpu/kept_weight.h"

namespace flopcuda {

// While one of these lives, weights are kept; with the last one, all that is kept goes.
class WeightsAreKept {
 public:
  WeightsAreKept();
  ~WeightsAreKept();
  WeightsAreKept(const WeightsAreKept&) = delete;
  WeightsAreKept& operator=(const WeightsAreKept&) = delete;
};

// What is kept of a weight, to be filled by a kernel. Null where nothing is to be kept, and the first time that a
// weight is seen with its version: what is made anew for every call, or changed after every one, never takes any
// memory.
std::shared_ptr<cpu::KeptWeight> kept_weight(const at::Tensor& weight);

// Bytes of all that is kept.
int64_t kept_weight_bytes();

}  // namespace flopcuda
