// Transposes squares of as many rows as a vector has elements, and what they leave one element after the other.
#include "transpose.h"

#include <algorithm>
#include <cstring>

#include "copy.h"
#include "partition.h"

namespace flopcuda::cpu {
namespace {

// A vector of as many rows as it has elements.
template <class Scalar>
struct Square {
  static constexpr int kSize = kBaselineLanes<Scalar>;
  typedef Scalar Vector __attribute__((vector_size(16)));

  Vector rows[kSize];

  void load(const Scalar* source, int64_t stride) {
    for (int i = 0; i < kSize; ++i) std::memcpy(&rows[i], source + i * stride, sizeof(Vector));
  }
  void store(Scalar* target, int64_t stride) const {
    for (int i = 0; i < kSize; ++i) std::memcpy(target + i * stride, &rows[i], sizeof(Vector));
  }
  void transpose();
};

template <>
void Square<float>::transpose() {
  const Vector low0 = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5);
  const Vector low1 = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5);
  const Vector high0 = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7);
  const Vector high1 = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
  rows[0] = __builtin_shufflevector(low0, low1, 0, 1, 4, 5);
  rows[1] = __builtin_shufflevector(low0, low1, 2, 3, 6, 7);
  rows[2] = __builtin_shufflevector(high0, high1, 0, 1, 4, 5);
  rows[3] = __builtin_shufflevector(high0, high1, 2, 3, 6, 7);
}

template <>
void Square<double>::transpose() {
  const Vector first = __builtin_shufflevector(rows[0], rows[1], 0, 2);
  rows[1] = __builtin_shufflevector(rows[0], rows[1], 1, 3);
  rows[0] = first;
}

// Columns [first, last) of at least Square::kSize rows, as many as fill squares.
template <class Scalar>
void transpose_squares(const Scalar* source, int64_t source_stride, int64_t rows, int64_t first, int64_t last,
                       Scalar* target, int64_t target_stride) {
  constexpr int64_t kSize = Square<Scalar>::kSize;
  for (int64_t next = 0; next < rows; next += kSize) {
    const int64_t row = std::min(next, rows - kSize);  // the last rows may overlap those before
    for (int64_t k = first; k + kSize <= last; k += kSize) {
      Square<Scalar> square;
      square.load(source + row * source_stride + k, source_stride);
      square.transpose();
      square.store(target + k * target_stride + row, target_stride);
    }
  }
}

// Columns [first, last), one element after the other.
template <class Scalar>
void transpose_elements(const Scalar* source, int64_t source_stride, int64_t rows, int64_t first, int64_t last,
                        Scalar* target, int64_t target_stride) {
  for (int64_t k = first; k < last; ++k) {
    for (int64_t row = 0; row < rows; ++row) target[k * target_stride + row] = source[row * source_stride + k];
  }
}

}  // namespace

template <class Scalar>
void transpose(const Scalar* source, int64_t source_stride, int64_t rows, int64_t columns, Scalar* target,
               int64_t target_stride) {
  constexpr int64_t kSize = Square<Scalar>::kSize;
  const int64_t in_squares = rows < kSize ? 0 : columns - columns % kSize;
  if (in_squares > 0) transpose_squares(source, source_stride, rows, 0, in_squares, target, target_stride);
  transpose_elements(source, source_stride, rows, in_squares, columns, target, target_stride);
}

template <class Scalar>
void transpose_from_memory(const Scalar* source, int64_t source_stride, int64_t rows, int64_t columns, Scalar* target,
                           int64_t target_stride) {
  const int64_t lines = ceil_div(columns, kLine<Scalar>);  // one of every row at a time
  const int64_t lines_ahead = std::max<int64_t>(1, kPrefetchedLines / rows);
  for (int64_t line = 0; line < lines; ++line) {
    // Behind the panel's end lies the next one.
    const int64_t next = line + lines_ahead, next_row = next < lines ? 0 : rows, next_line = next % lines;
    for (int64_t row = 0; row < rows; ++row) {
      __builtin_prefetch(source + (next_row + row) * source_stride + next_line * kLine<Scalar>, 0, 2);
    }
    const int64_t first = line * kLine<Scalar>;
    transpose(source + first, source_stride, rows, std::min(kLine<Scalar>, columns - first),
              target + first * target_stride, target_stride);
  }
}

template void transpose(const float*, int64_t, int64_t, int64_t, float*, int64_t);
template void transpose(const double*, int64_t, int64_t, int64_t, double*, int64_t);
template void transpose_from_memory(const float*, int64_t, int64_t, int64_t, float*, int64_t);
template void transpose_from_memory(const double*, int64_t, int64_t, int64_t, double*, int64_t);

}  // namespace flopcuda::cpu
