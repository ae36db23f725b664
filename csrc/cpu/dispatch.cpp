// Which instruction set the kernels run with.
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <atomic>
#include <stdexcept>
#include <string>

#include "kernels.h"
#include "micro_kernel.h"

namespace flopcuda::cpu {
namespace {

#if defined(__x86_64__) && !defined(FLOPCUDA_PORTABLE_ONLY)
// Conversion of float16, which not every compiler knows by name.
bool has_f16c() {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}
#endif

bool has(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return true;
#if defined(__x86_64__) && !defined(FLOPCUDA_PORTABLE_ONLY)
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("fma") && has_f16c();
#endif
    default:
      return false;
  }
}

std::atomic<Isa>& selection() {
  static std::atomic<Isa> isa{best_isa()};
  return isa;
}

}  // namespace

Isa best_isa() {
  if (has(Isa::kAvx512)) return Isa::kAvx512;
  if (has(Isa::kAvx2)) return Isa::kAvx2;
  return Isa::kPortable;
}

Isa selected_isa() { return selection(); }

void select_isa(Isa isa) {
  if (!has(isa)) throw std::invalid_argument(std::string("this CPU or this build lacks ") + isa_name(isa));
  selection() = isa;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
  }
  return "an unknown instruction set";
}

namespace {

// Of the tables of three instruction sets, that of the selected one.
template <class Kernels>
const Kernels& selected_among(const Kernels& portable, const Kernels& avx2, const Kernels& avx512) {
  switch (selected_isa()) {
    case Isa::kAvx512:
      return avx512;
    case Isa::kAvx2:
      return avx2;
    default:
      return portable;
  }
}

#if defined(__x86_64__) && !defined(FLOPCUDA_PORTABLE_ONLY)
const MicroKernels& selected_micro_kernels() {
  return selected_among(kPortableMicroKernels, kAvx2MicroKernels, kAvx512MicroKernels);
}
const DotKernels& selected_dot_kernels() {
  return selected_among(kPortableDotKernels, kAvx2DotKernels, kAvx512DotKernels);
}
#else
const MicroKernels& selected_micro_kernels() { return kPortableMicroKernels; }
const DotKernels& selected_dot_kernels() { return kPortableDotKernels; }
#endif

}  // namespace

template <>
const TileFamilies<float>& selected_tiles<float>() {
  return selected_micro_kernels().float32;
}

template <>
const TileFamilies<double>& selected_tiles<double>() {
  return selected_micro_kernels().float64;
}

#if defined(__x86_64__) && !defined(FLOPCUDA_PORTABLE_ONLY)
bool multiplies_pairs() {
  static const bool has_bfloat16 = __builtin_cpu_supports("avx512bf16");
  return selected_isa() == Isa::kAvx512 && has_bfloat16;
}
const PairTiles& selected_pair_tiles() { return multiplies_pairs() ? kAvx512PairTiles : kPortablePairTiles; }
#else
bool multiplies_pairs() { return false; }
const PairTiles& selected_pair_tiles() { return kPortablePairTiles; }
#endif

template <>
const DotFamily<float, float>& selected_dots() {
  return selected_dot_kernels().float32;
}

template <>
const DotFamily<double, double>& selected_dots() {
  return selected_dot_kernels().float64;
}

template <>
const DotFamily<float, BFloat16>& selected_dots() {
  return selected_dot_kernels().bfloat16;
}

template <>
const DotFamily<float, Float16>& selected_dots() {
  return selected_dot_kernels().float16;
}

template <>
const LineFamilies<float>& selected_lines() {
  return selected_dot_kernels().float32_lines;
}

template <>
const LineFamilies<double>& selected_lines() {
  return selected_dot_kernels().float64_lines;
}

}  // namespace flopcuda::cpu
