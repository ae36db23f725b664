// Transposed copies of matrices.
#pragma once

#include <cstdint>

#include "buffer.h"

namespace flopcuda::cpu {

// Elements of a cache line.
template <class Scalar>
constexpr int64_t kLine = kCacheLineBytes / int64_t{sizeof(Scalar)};

// Cache lines that are asked for before they are read, where they are too many and too far apart for the hardware to
// foresee them.
constexpr int64_t kPrefetchedLines = 64;

// Writes target[k * target_stride + row] = source[row * source_stride + k] for rows x columns values.
template <class Scalar>
void transpose(const Scalar* source, int64_t source_stride, int64_t rows, int64_t columns, Scalar* target,
               int64_t target_stride);

// Likewise, of what is in no cache yet: asks for what is read next, of its rows and then of as many behind them.
template <class Scalar>
void transpose_from_memory(const Scalar* source, int64_t source_stride, int64_t rows, int64_t columns, Scalar* target,
                           int64_t target_stride);

}  // namespace flopcuda::cpu
