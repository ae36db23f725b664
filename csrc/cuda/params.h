// What a launch passes to its kernel: one struct by value, the same bytes on the host, on the device and in a launch
// plan.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/counters.h"
#include "common/problem.h"
#include "cuda/tiles.h"

#ifdef __CUDACC__
#define FLOPCUDA_HOST_DEVICE __host__ __device__
#else
#define FLOPCUDA_HOST_DEVICE
#endif

namespace flopcuda::cuda {

// Division of 0 <= n < 2^31 by a constant known at launch: a high multiplication, an addition and a shift in place of
// some twenty instructions (Granlund and Montgomery, Division by Invariant Integers using Multiplication, PLDI 1994,
// figure 4.1). A 64-bit product stands for the high multiplication, so that host and device share the code.
struct FastDivisor {
  uint32_t divisor;
  uint32_t multiplier;
  uint32_t shift;

  FLOPCUDA_HOST_DEVICE uint32_t divide(uint32_t n) const {
    const uint32_t high = static_cast<uint32_t>(static_cast<uint64_t>(multiplier) * n >> 32);
    return (high + n) >> shift;
  }
};

// One axis of a convolution's images and kernel.
struct AxisParams {
  int32_t in_size;
  int32_t out_size;
  int32_t stride;
  int32_t pad;
  int32_t dilation;
  FastDivisor kernel_size;
};

// A tap of a convolution, for kernels on tensor cores that tabulate them.
struct TabulatedTap {
  // A bit of each of its coordinates, along width, height and depth; and all those of a width whose taps are channels.
  uint32_t coordinates;
  uint32_t step;  // from its input to the next tap's, in elements modulo 2^32
};

// The taps of a convolution in order, for kernels on tensor cores.
struct TapWalk {
  // Where the bits of the height's coordinates begin, and of the depth's; and one for each tap of a width whose taps
  // are channels.
  uint32_t height_first, depth_first, gathered_first;
  // From a tap's input to that of the next one, in elements modulo 2^32; the last two more if a row, or a depth, ends.
  uint32_t width_step, height_step, depth_step;
  TabulatedTap table[MAX_TABULATED_TAPS];
};

// What the blocks of a split kernel share; null for others.
struct SplitWorkspace {
  void* sums;         // [parts, tiles, sums of a tile]: split_sums.cuh says in which order these are
  uint32_t* tickets;  // [tiles], 0 before and after a launch
};

// A convolution as the product C[rows x columns] = W[rows x reduction] * im2col[reduction x columns] of each group:
// rows are the group's output channels, columns are output pixels of all images, and neighbouring columns neighbour in
// memory. Pointers are to the kernel's type of number.
//
// Kernels on tensor cores compute its transpose, with pixels as rows and channels as columns, from channels-last
// images: plan.h says how they lie.
struct ConvParams {
  const void* input;
  const void* weight;
  const void* bias;  // or null
  void* output;
  Counters* counters;

  int64_t columns;             // batch * output_pixels, also where they are rows
  int64_t input_image_stride;  // elements, like all strides here
  int64_t input_channel_stride;
  int64_t output_image_stride;
  int64_t group_input_extent;  // from a group's first channel to the next group's

  int32_t output_pixels;  // of one image; also the stride of an output channel
  int32_t group_in_channels;
  int32_t group_out_channels;  // the rows of one group
  int32_t reduction;           // group_in_channels * taps
  int32_t taps;                // of a kernel
  AxisParams depth;
  AxisParams height;
  AxisParams width;
  AxisParams gathered_width;  // whose taps are channels, or of one tap (tap_channels.h)

  // The grid is one-dimensional (only x may exceed 65,535 blocks): tiles along the channels of a group vary first, then
  // tiles along the pixels, then groups. The direct kernel has one channel a block: columns vary first, then channels.
  uint32_t row_tiles;
  uint32_t column_tiles;

  // 1 if every vector that a thread stores at once starts at a multiple of 16 bytes.
  uint32_t output_is_aligned;
  uint32_t scalar_bytes;  // of an element, for addresses: async_copy.cuh says why it is no constant
  // Kernels on tensor cores: from a pixel's channels to the next pixel's.
  uint32_t input_pixel_stride;
  TapWalk tap_walk;
  SplitWorkspace workspace;
};

// Of each of a batch, C[rows x out_features] = X[rows x in_features] * W[out_features x in_features]^T.
struct LinearParams {
  const void* input;
  const void* weight;
  const void* bias;  // or null
  void* output;
  Counters* counters;

  int64_t rows;  // of one product of the batch
  Triangle triangle;
  int32_t in_features;
  int32_t out_features;

  // As above: tiles along the columns (output features) vary first, then tiles along the rows, then the batch.
  uint32_t row_tiles;
  uint32_t column_tiles;

  uint32_t output_is_aligned;
  uint32_t scalar_bytes;
  uint32_t row_stride;  // of input and weight, in elements: in_features, or more for kernels on tensor cores
  uint32_t unused;      // no hidden padding: equal problems give equal bytes
  SplitWorkspace workspace;
};

static_assert(sizeof(void*) == 8, "pointers are 64-bit on both sides");
static_assert(sizeof(FastDivisor) == 12 && sizeof(ConvParams) == 800 && sizeof(LinearParams) == 104,
              "host and device agree on the layout");
static_assert(std::is_trivially_copyable_v<ConvParams> && std::is_trivially_copyable_v<LinearParams>,
              "parameters are copied as bytes");

}  // namespace flopcuda::cuda
