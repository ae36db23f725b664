// Which tile of a batch of linear layers or matrix products a block computes.
#pragma once

#include <cstdint>

#include "cuda/params.h"
#include "cuda/triangle.cuh"

namespace flopcuda::cuda {

struct TilePosition {
  int64_t batch;
  int64_t first_row;     // of this product of the batch
  int64_t first_column;  // likewise
  int rows;              // from the first on, at most BLOCK_M
  int columns;           // from the first on, at most BLOCK_N
  UsedPart used;
};

// The block's index, which the compiler takes for another number than it has seen.
__device__ inline uint32_t block_index_again() {
  uint32_t block = blockIdx.x;
  asm volatile("" : "+r"(block));
  return block;
}

template <class Tile>
__device__ inline TilePosition locate_tile(const LinearParams& params, uint32_t block) {
  const uint32_t column_tile = block % params.column_tiles;
  const uint32_t row_tile = block / params.column_tiles % params.row_tiles;
  const int64_t first_row = static_cast<int64_t>(row_tile) * Tile::BLOCK_M;
  const int64_t first_column = static_cast<int64_t>(column_tile) * Tile::BLOCK_N;
  return {block / params.column_tiles / params.row_tiles,
          first_row,
          first_column,
          static_cast<int>(min(params.rows - first_row, static_cast<int64_t>(Tile::BLOCK_M))),
          static_cast<int>(min(params.out_features - first_column, static_cast<int64_t>(Tile::BLOCK_N))),
          locate_used(params.triangle, first_row, first_column, params.in_features)};
}

}  // namespace flopcuda::cuda
