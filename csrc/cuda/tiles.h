// The tile shapes of the counted CUDA kernels and the list of the kernels made of them: plain constants that kernels,
// planner and launcher share.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/data_type.h"

namespace flopcuda::cuda {

constexpr int WARP_SIZE = 32;
// What one thread reads or writes at once, as far as alignment allows.
constexpr int ACCESS_BYTES = 16;

// A launch has at most this many products an output, so that a thread can count its lanes in 32 bits (TileConfig
// asserts it).
constexpr int MAX_REDUCTION = (1 << 25) - 8;

// A block computes BLOCK_M x BLOCK_N outputs in slices of BLOCK_K products; a warp WARP_M x WARP_N of them; a thread
// THREAD_M x THREAD_N, in vectors of VECTOR rows by VECTOR columns that are strided over the warp tile. STAGES slices
// are in shared memory or on their way there.
template <class Scalar_, int BLOCK_M_, int BLOCK_N_, int BLOCK_K_, int WARP_M_, int WARP_N_, int THREAD_M_,
          int THREAD_N_, int STAGES_>
struct TileConfig {
  using Scalar = Scalar_;
  static constexpr int BLOCK_M = BLOCK_M_, BLOCK_N = BLOCK_N_, BLOCK_K = BLOCK_K_;
  static constexpr int WARP_M = WARP_M_, WARP_N = WARP_N_;
  static constexpr int THREAD_M = THREAD_M_, THREAD_N = THREAD_N_;
  static constexpr int STAGES = STAGES_;
  static constexpr bool IS_SPLIT = false;
  static constexpr int VECTOR = ACCESS_BYTES / sizeof(Scalar);
  static constexpr int WARPS_M = BLOCK_M / WARP_M, WARPS_N = BLOCK_N / WARP_N;
  static constexpr int LANES_M = WARP_M / THREAD_M, LANES_N = WARP_N / THREAD_N;
  static constexpr int WARPS = WARPS_M * WARPS_N;
  static constexpr int THREADS = WARPS * WARP_SIZE;

  // 512 threads on a multiprocessor leave 128 registers to each, which a thread tile of 8 x 8 needs. Doubles and the
  // counting of zeros take more registers, and so some of the occupancy.
  static constexpr int min_blocks(bool count_zero) {
    return (count_zero || sizeof(Scalar) > sizeof(float) ? 384 : 512) / THREADS;
  }

  static_assert(BLOCK_M % WARP_M == 0 && BLOCK_N % WARP_N == 0, "warp tiles fill the block tile");
  static_assert(WARP_M % THREAD_M == 0 && WARP_N % THREAD_N == 0, "thread tiles fill the warp tile");
  static_assert(LANES_M * LANES_N == WARP_SIZE, "each lane of a warp owns one thread tile");
  static_assert(THREAD_M % VECTOR == 0 && THREAD_N % VECTOR == 0, "fragments are read as vectors");
  static_assert(BLOCK_K % WARPS == 0 && BLOCK_N % WARP_SIZE == 0, "a warp copies whole steps of im2col columns");
  static_assert((int64_t{MAX_REDUCTION} + BLOCK_K - 1) * THREAD_M * THREAD_N < (int64_t{1} << 32),
                "32-bit thread counts");
  static_assert(THREADS >= 128 && 512 % THREADS == 0, "the number of blocks on a multiprocessor is whole");
};

//   128x128x16 thread tiles of 8 x 8: the fewest shared-memory reads per multiply-add
//   64x64x16   four times as many blocks: fills a device when there are few outputs
//   32x128x16  few rows: output channels of a convolution, samples of a linear layer
using F32_128x128x16 = TileConfig<float, 128, 128, 16, 32, 64, 8, 8, 2>;
using F32_64x64x16 = TileConfig<float, 64, 64, 16, 32, 32, 4, 8, 3>;
using F32_32x128x16 = TileConfig<float, 32, 128, 16, 32, 32, 4, 8, 2>;
using F64_64x64x8 = TileConfig<double, 64, 64, 8, 32, 32, 4, 8, 4>;
using F64_32x128x8 = TileConfig<double, 32, 128, 8, 32, 32, 4, 8, 3>;

// Tensor cores: a warp multiplies WARP_M x WARP_N outputs. A slice's rows are of 64 bytes, whatever the type: products
// of two steps, or of float64 of one.
template <DataType TYPE_, int BLOCK_M_, int BLOCK_N_, int WARP_M_, int WARP_N_, int STAGES_>
struct TensorTile {
  static constexpr DataType TYPE = TYPE_;
  static constexpr int BLOCK_M = BLOCK_M_, BLOCK_N = BLOCK_N_;
  static constexpr int WARP_M = WARP_M_, WARP_N = WARP_N_;
  static constexpr int STAGES = STAGES_;
  static constexpr bool IS_SPLIT = false;
  static constexpr int ROW_BYTES = 64;
  static constexpr int BLOCK_K = ROW_BYTES / scalar_bytes(TYPE);
  static constexpr int MMA_K = TYPE == DataType::float64 ? BLOCK_K : BLOCK_K / 2;  // products of an output in a step
  static constexpr int CHUNK = ACCESS_BYTES / scalar_bytes(TYPE);                  // numbers that one copy moves
  static constexpr int WARPS_N = BLOCK_N / WARP_N;
  static constexpr int THREADS = BLOCK_M / WARP_M * WARPS_N * WARP_SIZE;
};

//   128x128   the fewest reads of shared memory for a product; three stages are all that a kernel may declare of it
//   64x64     four times as many blocks
template <DataType TYPE>
using LargeTensorTile = TensorTile<TYPE, 128, 128, 64, 64, 3>;
template <DataType TYPE>
using SmallTensorTile = TensorTile<TYPE, 64, 64, 32, 32, 4>;
using F16_128x128x32 = LargeTensorTile<DataType::float16>;
using F16_64x64x32 = SmallTensorTile<DataType::float16>;
using BF16_128x128x32 = LargeTensorTile<DataType::bfloat16>;
using BF16_64x64x32 = SmallTensorTile<DataType::bfloat16>;
using TF32_128x128x16 = LargeTensorTile<DataType::tf32>;
using TF32_64x64x16 = SmallTensorTile<DataType::tf32>;
// Of doubles, more warps: one has 128 registers of sums.
using F64_MMA_128x128x8 = TensorTile<DataType::float64, 128, 128, 32, 64, 3>;
using F64_MMA_64x64x8 = SmallTensorTile<DataType::float64>;

// Likewise, but several blocks share the tile: each multiplies a part of the reduction (split_sums.cuh).
template <class Tile>
struct SplitTile : Tile {
  static constexpr bool IS_SPLIT = true;
};

// A reduction has at most this many parts.
constexpr int MAX_SPLITS = 64;

// How a convolution on tensor cores finds the input of a tap: in a table of so many taps at most, which the planner
// makes, or by decoding it in the main loop.
enum class TapSource { table, decoder };
constexpr int MAX_TABULATED_TAPS = 64;

// In 32 bits (TabulatedTap) are one for each coordinate of a tap along each axis, and at least one of a width whose
// taps are channels.
constexpr int MAX_TABULATED_SIDES = 32 - 1;

// The direct convolution: a block computes up to 512 outputs of one channel, each thread four.
struct DirectConfig {
  static constexpr int THREADS = 128;
  static constexpr int THREAD_OUTPUTS = 4;
  static constexpr int BLOCK_OUTPUTS = THREADS * THREAD_OUTPUTS;
  static constexpr int MIN_BLOCKS = 8;  // leaves a thread 64 registers: ptxas, left alone, would spill some
};

// Kernels of few outputs: a table has so many coordinates of a tap, those of depth, height and width together.
constexpr int MAX_FEW_OUTPUTS_SIDES = 2048;

// The convolution of few outputs: a block computes up to so many of one channel, and its threads share the products of
// each. A slice is one product of every thread and output.
template <class Scalar_, int OUTPUTS>
struct FewOutputsConfig {
  using Scalar = Scalar_;
  static constexpr int THREADS = 128;
  static constexpr int WARPS = THREADS / WARP_SIZE;
  static constexpr int BLOCK_M = 1, BLOCK_N = OUTPUTS, BLOCK_K = THREADS;
  static constexpr bool IS_SPLIT = false;
  // Registers for the sums, and for what is on its way to them: ptxas, left alone, would spill some.
  static constexpr int MIN_BLOCKS = OUTPUTS <= 9 ? 8 : sizeof(Scalar) > sizeof(float) ? 4 : 5;
  // A thread executes some 600 instructions outside its main loop, which has 82, or, of 25 outputs, 1,150 beside 158:
  // to make the table, and to add up.
  static constexpr int FIXED_SLICES = 7;
  // A bit for each output.
  using Marks = std::conditional_t<(OUTPUTS > 16), uint32_t, uint16_t>;
  static_assert(OUTPUTS <= 32, "a thread reads the marks of a tap in 32 bits");
  static_assert((int64_t{MAX_REDUCTION} / THREADS + 1) * BLOCK_N < (int64_t{1} << 32), "32-bit thread counts");
};

//   9    as many as a 3 x 3 kernel's gradient has
//   25   of 5 x 5, and half of 7 x 7: each output shares a tap's index arithmetic with 24 others
using F32_FEW_OUTPUTS_9 = FewOutputsConfig<float, 9>;
using F32_FEW_OUTPUTS_25 = FewOutputsConfig<float, 25>;
using F64_FEW_OUTPUTS_9 = FewOutputsConfig<double, 9>;
using F64_FEW_OUTPUTS_25 = FewOutputsConfig<double, 25>;

// Every kernel: its name, to which the twin that fills the zero counter too adds _count_zero, and the one whose
// reduction is split, if there is one, _split; the share of multiply-adds in the instructions of its main loop, read
// from sm_80 SASS (the planner compares kernels of a type by it); and what it is made of.
#define FLOPCUDA_LINEAR_KERNELS(X)                        \
  X(flopcuda_linear_f32_128x128x16, 0.90, F32_128x128x16) \
  X(flopcuda_linear_f32_64x64x16, 0.83, F32_64x64x16)     \
  X(flopcuda_linear_f32_32x128x16, 0.82, F32_32x128x16)   \
  X(flopcuda_linear_f64_64x64x8, 0.74, F64_64x64x8)       \
  X(flopcuda_linear_f64_32x128x8, 0.72, F64_32x128x8)

#define FLOPCUDA_CONV_KERNELS(X)                        \
  X(flopcuda_conv_f32_128x128x16, 0.88, F32_128x128x16) \
  X(flopcuda_conv_f32_64x64x16, 0.81, F32_64x64x16)     \
  X(flopcuda_conv_f32_32x128x16, 0.79, F32_32x128x16)   \
  X(flopcuda_conv_f64_64x64x8, 0.72, F64_64x64x8)       \
  X(flopcuda_conv_f64_32x128x8, 0.705, F64_32x128x8)

#define FLOPCUDA_LINEAR_TENSOR_KERNELS(X)                       \
  X(flopcuda_linear_f16_128x128x32, 0.52, F16_128x128x32)       \
  X(flopcuda_linear_f16_64x64x32, 0.295, F16_64x64x32)          \
  X(flopcuda_linear_bf16_128x128x32, 0.52, BF16_128x128x32)     \
  X(flopcuda_linear_bf16_64x64x32, 0.295, BF16_64x64x32)        \
  X(flopcuda_linear_tf32_128x128x16, 0.535, TF32_128x128x16)    \
  X(flopcuda_linear_tf32_64x64x16, 0.295, TF32_64x64x16)        \
  X(flopcuda_linear_f64_mma_128x128x8, 0.53, F64_MMA_128x128x8) \
  X(flopcuda_linear_f64_mma_64x64x8, 0.395, F64_MMA_64x64x8)

#define FLOPCUDA_CONV_TENSOR_KERNELS(X)                                          \
  X(flopcuda_conv_f16_128x128x32, 0.535, F16_128x128x32, table)                  \
  X(flopcuda_conv_f16_128x128x32_many_taps, 0.53, F16_128x128x32, decoder)       \
  X(flopcuda_conv_f16_64x64x32, 0.30, F16_64x64x32, table)                       \
  X(flopcuda_conv_f16_64x64x32_many_taps, 0.295, F16_64x64x32, decoder)          \
  X(flopcuda_conv_bf16_128x128x32, 0.535, BF16_128x128x32, table)                \
  X(flopcuda_conv_bf16_128x128x32_many_taps, 0.53, BF16_128x128x32, decoder)     \
  X(flopcuda_conv_bf16_64x64x32, 0.30, BF16_64x64x32, table)                     \
  X(flopcuda_conv_bf16_64x64x32_many_taps, 0.295, BF16_64x64x32, decoder)        \
  X(flopcuda_conv_tf32_128x128x16, 0.535, TF32_128x128x16, table)                \
  X(flopcuda_conv_tf32_128x128x16_many_taps, 0.53, TF32_128x128x16, decoder)     \
  X(flopcuda_conv_tf32_64x64x16, 0.30, TF32_64x64x16, table)                     \
  X(flopcuda_conv_tf32_64x64x16_many_taps, 0.295, TF32_64x64x16, decoder)        \
  X(flopcuda_conv_f64_mma_128x128x8, 0.54, F64_MMA_128x128x8, table)             \
  X(flopcuda_conv_f64_mma_128x128x8_many_taps, 0.54, F64_MMA_128x128x8, decoder) \
  X(flopcuda_conv_f64_mma_64x64x8, 0.415, F64_MMA_64x64x8, table)                \
  X(flopcuda_conv_f64_mma_64x64x8_many_taps, 0.415, F64_MMA_64x64x8, decoder)

#define FLOPCUDA_DIRECT_KERNELS(X)         \
  X(flopcuda_conv_f32_direct, 0.10, float) \
  X(flopcuda_conv_f64_direct, 0.10, double)

#define FLOPCUDA_FEW_OUTPUTS_KERNELS(X)                          \
  X(flopcuda_conv_f32_few_outputs_9, 0.108, F32_FEW_OUTPUTS_9)   \
  X(flopcuda_conv_f32_few_outputs_25, 0.158, F32_FEW_OUTPUTS_25) \
  X(flopcuda_conv_f64_few_outputs_9, 0.105, F64_FEW_OUTPUTS_9)   \
  X(flopcuda_conv_f64_few_outputs_25, 0.149, F64_FEW_OUTPUTS_25)

}  // namespace flopcuda::cuda
