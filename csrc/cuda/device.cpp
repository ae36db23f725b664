// See device.h. FMA units: CUDA C++ Programming Guide, "Throughput of Native Arithmetic Instructions". Tensor cores,
// dense: NVIDIA's whitepapers on A100, GA102, Ada, H100 and Blackwell; of Hopper, what mma.sync can reach,
// since no kernel here uses wgmma (Luo et al., arXiv:2402.13499: 62.9% of the peak on average). That of 10.0 for
// mma.sync is an assumption, for want of a source: an A100's. Published ones are tcgen05's, which no kernel here uses.
#include "cuda/device.h"

namespace flopcuda::cuda {
namespace {

struct Capability {
  int capability;
  Rates rates;
};

constexpr double HOPPER_MMA_SHARE = 0.63;

constexpr Capability CAPABILITIES[] = {
    {75, {64, 2, 0, 0, 0}},  // whose tensor cores the kernels do not use
    {80, {64, 32, 1024, 512, 64}},
    {86, {128, 2, 512, 256, 0}},
    {87, {128, 2, 1024, 512, 0}},
    {89, {128, 2, 512, 256, 0}},
    {90, {128, 64, 2048 * HOPPER_MMA_SHARE, 1024 * HOPPER_MMA_SHARE, 128}},
    {100, {128, 64, 1024, 512, 64}},
    {120, {128, 2, 512, 256, 0}},
};

// With float32 sums, of the tensor cores' rate: TF32 of 29.8 and 82.6 TFLOPS on an RTX 3080 and 4090, where the A6000
// and the L4 have twice as much for as many multiprocessors and cycles (the whitepapers on GA102 and Ada; on Blackwell,
// 104.8 on an RTX 5090).
constexpr double GEFORCE_MMA_SHARE = 0.5;

// Of its clock, what an H100 keeps while tensor cores multiply 16-bit numbers and TF32: 1830 of 1980 MHz (its
// whitepaper).
constexpr double HOPPER_CLOCK_SHARE = 1830.0 / 1980;

double clock_share(int capability) { return capability / 10 == 9 ? HOPPER_CLOCK_SHARE : 1; }

bool is_geforce(std::string_view name) { return name.find("GeForce") != std::string_view::npos; }

}  // namespace

Rates rates_of(int capability, std::string_view name) {
  Rates rates = CAPABILITIES[0].rates;
  for (const Capability& entry : CAPABILITIES) {
    if (entry.capability <= capability) rates = entry.rates;
  }
  if (is_geforce(name)) {
    for (const Unit unit : {Unit::mma_f16, Unit::mma_tf32}) rates[static_cast<int>(unit)] *= GEFORCE_MMA_SHARE;
  }
  return rates;
}

DeviceProperties properties_of(const DeviceFacts& facts) {
  DeviceProperties properties;
  properties.multiprocessors = facts.multiprocessors;
  properties.rates = rates_of(facts.capability, facts.name);
  const double hertz = clock_share(facts.capability) * (facts.hertz > 0 ? facts.hertz : A100_HERTZ);
  properties.launch_cycles = LAUNCH_SECONDS * hertz;
  if (facts.bandwidth > 0) {
    properties.memory_bytes = BANDWIDTH_SHARE * facts.bandwidth / hertz / facts.multiprocessors;
  }
  return properties;
}

}  // namespace flopcuda::cuda
