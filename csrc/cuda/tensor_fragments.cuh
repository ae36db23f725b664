// How a slice lies in shared memory for tensor cores, and how a warp reads what it multiplies: fragments of A and of B.
//
// A slice's row has four chunks of 16 bytes, which change places by bits of the row's number, so that a read is free of
// bank conflicts: what lanes read at once lies on all 32 banks.
#pragma once

#include <cstdint>

#include "cuda/tensor_core.cuh"
#include "cuda/tiles.h"

namespace flopcuda::cuda {

constexpr int CHUNKS_PER_ROW = 4;

// Rows of a slice whose chunks change places alike. The eight rows of a matrix that ldmatrix reads are neighbours in A,
// and pairs that lie CHUNK rows apart in B; in either case one chunk of theirs is on all banks. Of doubles, so are the
// halves of four neighbours.
template <class Tile>
constexpr int A_SWAP = Tile::TYPE == DataType::float64 ? 1 : 2;
template <class Tile>
constexpr int B_SWAP = Tile::TYPE == DataType::float64 ? 1 : Tile::CHUNK;

// Where a chunk of a row lies in a slice.
template <int SWAP>
__device__ constexpr int chunk_offset(int row, int chunk) {
  return row * (CHUNKS_PER_ROW * ACCESS_BYTES) + (chunk ^ (row / SWAP % CHUNKS_PER_ROW)) * ACCESS_BYTES;
}

// Reads fragments of 16 rows of A, or of 16 columns of B, for two products: a step's, which is half of a row, or, of
// doubles, all of it. A column of B is a row of the slice; which one is free: they are taken so that the two columns of
// a lane in one product and those in the next CHUNK / 2 - 1 are neighbours.
//
// first_row, first_column: the warp's. a, b: the address of a slice's row, from the warp's first on.
template <class Tile, DataType TYPE = Tile::TYPE>
class FragmentReader {
 public:
  __device__ FragmentReader(int first_row, int first_column) {
    const int lane = threadIdx.x % WARP_SIZE;
    const int column = lane % MATRIX_ROWS / 2 * Tile::CHUNK + lane / MMA_M * 2 + lane % 2;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      a_offsets_[half] = chunk_offset<A_SWAP<Tile>>(first_row + lane % MMA_M, half * 2 + lane / MMA_M);
      b_offsets_[half] = chunk_offset<B_SWAP<Tile>>(first_column + column, half * 2 + lane / MATRIX_ROWS % 2);
    }
  }

  __device__ void read_a(uint32_t (&words)[4], uint32_t a, int step) const {
    load_matrices(words, a + a_offsets_[step]);
  }
  __device__ void read_b(uint32_t (&words)[4], uint32_t b, int step) const {
    load_matrices(words, b + b_offsets_[step]);
  }

 private:
  uint32_t a_offsets_[2];  // of the row whose address the lane gives, by half of a row
  uint32_t b_offsets_[2];
};

// ldmatrix would tear a double: a lane reads each of its own.
template <class Tile>
class FragmentReader<Tile, DataType::float64> {
 public:
  __device__ FragmentReader(int first_row, int first_column) {
    const int lane = threadIdx.x % WARP_SIZE;
    const int in_half = lane % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int chunk = half * 2 + in_half / Tile::CHUNK;
      const int in_chunk = in_half % Tile::CHUNK * static_cast<int>(sizeof(double));
      a_offsets_[half] = chunk_offset<A_SWAP<Tile>>(first_row + lane / 4, chunk) + in_chunk;
      b_offsets_[half] = chunk_offset<B_SWAP<Tile>>(first_column + lane / 4, chunk) + in_chunk;
    }
  }

  __device__ void read_a(double (&words)[4], uint32_t a, int) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = load_double(a + a_offsets_[i / 2] + i % 2 * LOWER_MATRIX);
  }
  __device__ void read_b(double (&words)[4], uint32_t b, int) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = load_double(b + b_offsets_[i % 2] + i / 2 * LOWER_MATRIX);
  }

 private:
  static constexpr int LOWER_MATRIX = MATRIX_ROWS * Tile::ROW_BYTES;  // bytes on

  uint32_t a_offsets_[2];  // of the lane's number in the upper matrix, by half of a row
  uint32_t b_offsets_[2];
};

}  // namespace flopcuda::cuda
