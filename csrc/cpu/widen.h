// Loads vectors of an operand, those of 16-bit numbers widened to float: by integer arithmetic, which every instruction
// set has, and without subnormal floats, which a thread may be set to take for zeros.
//
// In an unnamed namespace, as tile_kernel.h says.
#pragma once

#ifdef __F16C__
#include <immintrin.h>
#endif

#include "half.h"
#include "simd.h"

namespace flopcuda::cpu {
namespace {

template <class Element, int kLanes>
struct VectorOf {
  typedef Element Type __attribute__((vector_size(kLanes * sizeof(Element))));
};

template <class Simd>
using Words = typename VectorOf<uint32_t, Simd::kLanes>::Type;

// A vector's worth of 16-bit numbers, each in 32 bits.
template <class Simd>
inline Words<Simd> load_words(const void* source) {
  typename VectorOf<uint16_t, Simd::kLanes>::Type halves;
  __builtin_memcpy(&halves, source, sizeof(halves));
  return __builtin_convertvector(halves, Words<Simd>);
}

template <class Simd>
inline typename Simd::Vector load_widened(const typename Simd::Scalar* source) {
  return Simd::load(source);
}

template <class Simd>
inline typename Simd::Vector load_widened(const BFloat16* source) {
  return reinterpret_cast<typename Simd::Vector>(load_words<Simd>(source) << 16);
}

// A float16 has 5 bits of exponent, biased by 15, and 10 of significand; a float 8, biased by 127, and 23.
template <class Simd>
inline typename Simd::Vector load_by_arithmetic(const Float16* source) {
  using Float = typename Simd::Vector;
  using Word = Words<Simd>;
  constexpr uint32_t kRebias = (127u - 15u) << 23, kExponent = 31u << 23, kLeastNormal = 1u << 23;
  const Word bits = load_words<Simd>(source);
  const Word magnitude = (bits & 0x7fff) << 13;
  const Word is_infinite = reinterpret_cast<Word>(magnitude >= kExponent);  // or not a number
  const Word normal = magnitude + kRebias + (is_infinite & kRebias);
  // With the exponent of the least normal number, a subnormal's significand is too large by just that number.
  const Float subnormal = reinterpret_cast<Float>(magnitude + kRebias + kLeastNormal) - 0x1p-14f;
  const Word is_subnormal = reinterpret_cast<Word>(magnitude < kLeastNormal);
  const Word unsigned_result = (is_subnormal & reinterpret_cast<Word>(subnormal)) | (~is_subnormal & normal);
  return reinterpret_cast<Float>(unsigned_result | (bits & 0x8000) << 16);
}

// By an instruction where there is one for the vector; it takes no subnormal for zero either.
template <class Simd>
inline typename Simd::Vector load_widened(const Float16* source) {
#ifdef __F16C__
  if constexpr (Simd::kLanes == 8) return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
#endif
#ifdef __AVX512F__
  if constexpr (Simd::kLanes == 16) {
    // All lanes of the masked one: GCC 12 warns of an uninitialised value in the other.
    return _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
  }
#endif
  return load_by_arithmetic<Simd>(source);
}

// The last elements of a row or column, in a vector that is zero beyond them.
template <class Simd, class Element>
inline typename Simd::Vector load_first(const Element* source, int64_t count) {
  Element elements[Simd::kLanes] = {};
  __builtin_memcpy(elements, source, count * sizeof(Element));
  return load_widened<Simd>(elements);
}

}  // namespace
}  // namespace flopcuda::cpu
