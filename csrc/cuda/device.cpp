// See device.h. FMA units: CUDA C++ Programming Guide, "Throughput of Native Arithmetic Instructions". Tensor cores,
// dense: NVIDIA's whitepapers on Turing, A100, GA102, Ada, H100 and Blackwell; of Hopper, what mma.sync can reach,
// since no kernel here uses wgmma (Luo et al., arXiv:2402.13499: 62.9% of the peak on average).
#include "cuda/device.h"

namespace flopcuda::cuda {
namespace {

struct Capability {
  int capability;
  Rates rates;
};

constexpr double HOPPER_MMA_SHARE = 0.63;

constexpr Capability CAPABILITIES[] = {
    {75, {64, 2, 512, 0, 0}},        {80, {64, 32, 1024, 512, 64}},
    {86, {128, 2, 512, 256, 0}},     {87, {128, 2, 1024, 512, 0}},
    {89, {128, 2, 512, 256, 0}},     {90, {128, 64, 2048 * HOPPER_MMA_SHARE, 1024 * HOPPER_MMA_SHARE, 128}},
    {100, {128, 64, 1024, 512, 64}}, {120, {128, 2, 512, 256, 0}},
};

}  // namespace

Rates rates_of(int capability) {
  Rates rates = CAPABILITIES[0].rates;
  for (const Capability& entry : CAPABILITIES) {
    if (entry.capability <= capability) rates = entry.rates;
  }
  return rates;
}

}  // namespace flopcuda::cuda
