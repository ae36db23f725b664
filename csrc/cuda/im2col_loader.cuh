// Loads slices of the im2col matrix of a convolution without storing that matrix: implicit GEMM.
//
// Bottlenecks it removes: the memory that an explicit im2col writes and reads back, kernel_height * kernel_width times
// the input; and integer work. A thread keeps one column, an output pixel, so that its lanes read neighbouring inputs.
// Which channel and tap a step stands for is decoded once per block, by eight threads, one slice ahead, into a table in
// shared memory; a load then costs one 128-bit table read, two bounds checks and an address.
#pragma once

#include <cstdint>
#include <cstring>

#include "cuda/conv2d_window.cuh"
#include "cuda/gemm_main_loop.cuh"
#include "cuda/params.h"
#include "cuda/tiles.h"

namespace flopcuda::cuda {

// Where a step of the reduction reads, relative to a window's origin.
struct alignas(16) Tap {
  int64_t offset;  // elements
  int32_t row;
  int32_t column;
};

// Reads a struct of 16 bytes at once; the compiler would do it field by field.
template <class Struct>
__device__ inline Struct load_128_bits(const Struct& source) {
  static_assert(sizeof(Struct) == 16 && alignof(Struct) == 16, "one vector");
  const longlong2 bits = *reinterpret_cast<const longlong2*>(&source);
  Struct copy;
  memcpy(&copy, &bits, sizeof(copy));
  return copy;
}

template <class Tile>
struct Im2colShared {
  static constexpr int THREADS_PER_COLUMN = Tile::THREADS / Tile::BLOCK_N;

  Tap taps[2][Tile::BLOCK_K];
  // Each thread's window. Here, because the main loop, which has all registers busy, needs it once a slice.
  InputWindow windows[Tile::THREADS];
  // Bit k of a column's bytes: the tap of step k lies in the padding. Each thread that loads for a column writes a byte
  // with its own steps; bytes of four neighbouring columns stand together, for one read of the thread that counts them.
  alignas(16) uint8_t padding[2][Tile::BLOCK_N / VECTOR][THREADS_PER_COLUMN][VECTOR];
};

template <class Tile>
class Im2colLoader {
 public:
  using Slice = OperandSlice<Tile::BLOCK_N, Tile::BLOCK_K>;

  // first_pixel: the block's first column. columns: how many the problem has from there on.
  // Ends with a barrier: fetch() reads what other threads decoded.
  __device__ Im2colLoader(const Conv2dParams& params, int group, Pixel first_pixel, int columns, Slice (&slices)[2],
                          Im2colShared<Tile>& shared)
      : params_(params), slices_(slices), shared_(shared) {
    shared.windows[threadIdx.x] =
        block_column() < columns
            ? InputWindow::of(params, group, first_pixel.advance(block_column(), params.output_plane))
            : InputWindow::nowhere(params);
    decode_taps(0, 0);
    __syncthreads();
  }

  // Between two calls there must be a barrier: taps of the next slice are decoded on the way.
  __device__ void fetch(int first, int stage) {
    const InputWindow window = load_128_bits(shared_.windows[threadIdx.x]);
    uint32_t padding = 0;
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
      const Tap tap = load_128_bits(shared_.taps[stage][first_step() + i]);
      const bool is_inside = window.has_input_at(params_, tap.row, tap.column);
      values_[i] = is_inside ? __ldg(window.origin + tap.offset) : 0.0f;
      padding |= is_inside ? 0 : 1u << i;
    }
    // A column beyond the problem has no taps, in the padding or elsewhere.
    shared_.padding[stage][block_column() / VECTOR][thread_of_column()][block_column() % VECTOR] =
        static_cast<uint8_t>(window.exists() ? padding << first_step() : 0);
    decode_taps(first + Tile::BLOCK_K, stage ^ 1);
  }

  __device__ void commit(int stage) {
#pragma unroll
    for (int i = 0; i < STEPS; ++i) slices_[stage].values[first_step() + i][block_column()] = values_[i];
  }

  // How many taps of the thread's columns lie in the padding at these steps of the slice.
  __device__ int count_padding(int stage, const ThreadPosition<Tile>& position, uint32_t steps) const {
    int count = 0;
#pragma unroll
    for (int j = 0; j < Tile::THREAD_N; j += VECTOR) {
      uint32_t four_columns = 0;
#pragma unroll
      for (int thread = 0; thread < THREADS_PER_COLUMN; ++thread) {
        four_columns |= *reinterpret_cast<const uint32_t*>(
            shared_.padding[stage][(position.first_column() + position.column_offset(j)) / VECTOR][thread]);
      }
      count += __popc(four_columns & in_every_byte(steps));
    }
    return count;
  }

 private:
  static constexpr int THREADS_PER_COLUMN = Im2colShared<Tile>::THREADS_PER_COLUMN;
  static constexpr int STEPS = Tile::BLOCK_K / THREADS_PER_COLUMN;

  __device__ static int block_column() { return threadIdx.x % Tile::BLOCK_N; }
  __device__ static int thread_of_column() { return threadIdx.x / Tile::BLOCK_N; }
  __device__ static int first_step() { return thread_of_column() * STEPS; }

  __device__ void decode_taps(int first, int stage) const {
    if (threadIdx.x < Tile::BLOCK_K) shared_.taps[stage][threadIdx.x] = decode_tap(first + threadIdx.x);
  }

  __device__ Tap decode_tap(int k) const {
    if (k >= params_.reduction) return {0, OUTSIDE, OUTSIDE};
    const int kernel_rows = params_.kernel_width.divide(k);  // whole kernel rows before k, in all channels
    const int channel = params_.kernel_height.divide(kernel_rows);
    const int kernel_row = kernel_rows - channel * params_.kernel_height.divisor;
    const int kernel_column = k - kernel_rows * params_.kernel_width.divisor;
    const int row = kernel_row * params_.dilation_height;
    const int column = kernel_column * params_.dilation_width;
    const int64_t offset = channel * params_.input_plane + static_cast<int64_t>(row) * params_.in_width + column;
    return {offset, row, column};
  }

  const Conv2dParams& params_;
  Slice (&slices_)[2];
  Im2colShared<Tile>& shared_;
  float values_[STEPS];
};

}  // namespace flopcuda::cuda
