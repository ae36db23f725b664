// The tile shapes of the counted CUDA kernels and the names made of them: plain constants that kernels, planner and
// launcher share.
#pragma once

#include <cstdint>

namespace flopcuda::cuda {

constexpr int WARP_SIZE = 32;
// Floats in a 128-bit vector, the unit in which shared memory is read and, where alignment allows, global memory too.
constexpr int VECTOR = 4;

// A launch has at most this many products an output, so that a thread can count its lanes in 32 bits (TileConfig
// asserts it).
constexpr int MAX_REDUCTION = (1 << 26) - 8;

// A block computes BLOCK_M x BLOCK_N outputs in slices of BLOCK_K products; a warp WARP_M x WARP_N of them; a thread
// THREAD_M x THREAD_N, in vectors of four rows by four columns that are strided over the warp tile.
template <int BLOCK_M_, int BLOCK_N_, int BLOCK_K_, int WARP_M_, int WARP_N_, int THREAD_M_, int THREAD_N_>
struct TileConfig {
  static constexpr int BLOCK_M = BLOCK_M_, BLOCK_N = BLOCK_N_, BLOCK_K = BLOCK_K_;
  static constexpr int WARP_M = WARP_M_, WARP_N = WARP_N_;
  static constexpr int THREAD_M = THREAD_M_, THREAD_N = THREAD_N_;
  static constexpr int WARPS_M = BLOCK_M / WARP_M, WARPS_N = BLOCK_N / WARP_N;
  static constexpr int LANES_M = WARP_M / THREAD_M, LANES_N = WARP_N / THREAD_N;
  static constexpr int THREADS = WARPS_M * WARPS_N * WARP_SIZE;
  // 512 threads on a multiprocessor leave 128 registers to each, which a thread tile of 8 x 8 needs.
  static constexpr int MIN_BLOCKS = 512 / THREADS;
  // Counting zeros takes more registers, and so some of the occupancy.
  static constexpr int MIN_BLOCKS_COUNT_ZERO = 384 / THREADS;

  static_assert(BLOCK_M % WARP_M == 0 && BLOCK_N % WARP_N == 0, "warp tiles fill the block tile");
  static_assert(WARP_M % THREAD_M == 0 && WARP_N % THREAD_N == 0, "thread tiles fill the warp tile");
  static_assert(LANES_M * LANES_N == WARP_SIZE, "each lane of a warp owns one thread tile");
  static_assert(THREAD_M % VECTOR == 0 && THREAD_N % VECTOR == 0, "fragments are read as 128-bit vectors");
  static_assert(BLOCK_K == 8, "the steps of a slice are the bits of a byte");
  static_assert(THREADS % BLOCK_N == 0 && BLOCK_K * BLOCK_N % THREADS == 0,
                "an im2col thread loads taps of one column");
  static_assert((int64_t{MAX_REDUCTION} + BLOCK_K - 1) * THREAD_M * THREAD_N < (int64_t{1} << 32),
                "32-bit thread counts");
  static_assert(THREADS >= 128 && 512 % THREADS == 0, "MIN_BLOCKS is a whole number");
};

// Each row: the tile's name; the share of multiply-adds in the instructions of its main loop, in conv2d and in linear,
// read from sm_80 SASS (the planner compares tiles by it); the arguments of its TileConfig.
//   128x128x8  thread tiles of 8 x 8: the fewest shared-memory reads per multiply-add
//   64x64x8    four times as many blocks: fills a device when there are few outputs
//   32x128x8   few rows: output channels of a convolution, samples of a linear layer
#define FLOPCUDA_GEMM_TILES(X)                        \
  X(128x128x8, 0.71, 0.79, 128, 128, 8, 32, 64, 8, 8) \
  X(64x64x8, 0.58, 0.69, 64, 64, 8, 32, 32, 4, 8)     \
  X(32x128x8, 0.51, 0.62, 32, 128, 8, 32, 32, 4, 8)

// The direct convolution: a block computes up to 512 outputs of one channel, each thread four.
struct DirectConfig {
  static constexpr int THREADS = 128;
  static constexpr int THREAD_OUTPUTS = 4;
  static constexpr int BLOCK_OUTPUTS = THREADS * THREAD_OUTPUTS;
  static constexpr double MULTIPLY_SHARE = 0.07;
};

// Kernel names. The second of each pair fills the zero counter too.
#define FLOPCUDA_CONV2D(tile) flopcuda_conv2d_f32_##tile
#define FLOPCUDA_CONV2D_COUNT_ZERO(tile) flopcuda_conv2d_f32_##tile##_count_zero
#define FLOPCUDA_LINEAR(tile) flopcuda_linear_f32_##tile
#define FLOPCUDA_LINEAR_COUNT_ZERO(tile) flopcuda_linear_f32_##tile##_count_zero

// A kernel's name as a string: FLOPCUDA_NAME(FLOPCUDA_LINEAR(64x64x8)).
#define FLOPCUDA_NAME(kernel) FLOPCUDA_STRINGIFY(kernel)
#define FLOPCUDA_STRINGIFY(text) #text

}  // namespace flopcuda::cuda
