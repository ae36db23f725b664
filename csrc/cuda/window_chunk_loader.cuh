// Copies slices of the im2col matrix of a channels-last convolution without storing that matrix: a row is an output
// pixel, a segment of the reduction is a tap, and a tap's channels are neighbours in memory.
//
// Bottlenecks it removes: in NCHW, neighbours along the reduction are whole images apart, and a number of 16 bits is
// less than cp.async can copy; here a copy of 16 bytes moves eight of them. And integer work: whether a tap of a window
// lies in the image is found once a block, as a bit for each coordinate of a tap along each axis. The current tap's
// bits tell once a run which copies are of zeros, and a tap is followed by the next with a few additions.
#pragma once

#include <cstdint>

#include "cuda/conv_window.cuh"
#include "cuda/params.h"
#include "cuda/tensor_main_loop.cuh"

namespace flopcuda::cuda {

// A bit for each coordinate along an axis at which a window has an input.
__device__ inline uint32_t mark_inside(const AxisParams& axis, int32_t first_input) {
  uint32_t bits = 0;
  for (uint32_t tap = 0; tap < axis.kernel_size.divisor; ++tap) {
    const int32_t coordinate = first_input + static_cast<int32_t>(tap) * axis.dilation;
    bits |= static_cast<uint32_t>(is_inside(axis, coordinate)) << tap;
  }
  return bits;
}

// Those of all axes: a tap has an input if all of its bits are set.
__device__ inline uint32_t mark_inside(const ConvParams& params, const Position& window) {
  return mark_inside(params.width, window.column) |
         mark_inside(params.height, window.row) * params.tap_walk.height_first |
         mark_inside(params.depth, window.depth) * params.tap_walk.depth_first;
}

template <class Tile>
class WindowChunkLoader {
  using Chunks = CopiedChunks<Tile, Tile::BLOCK_M, A_SWAP<Tile>>;
  using Scalar = TensorScalar<Tile::TYPE>;

 public:
  // first_pixel: the block's first row. rows: how many the problem has from there on. slice: of the first stage.
  __device__ WindowChunkLoader(const ConvParams& params, int group, Pixel first_pixel, int rows, const char* slice)
      : params_(params),
        destination_(shared_address(slice[Chunks::first_offset()])),
        source_(static_cast<const Scalar*>(params.input) + first_pixel.image * params.input_image_stride +
                group * params.group_input_extent + first_product<Tile>()),
        tap_(params.tap_walk.first_tap()),
        multiplied_tap_(params.tap_walk.first_tap()) {
#pragma unroll
    for (int i = 0; i < Chunks::ROWS; ++i) {
      const Pixel pixel = first_pixel.advance(Chunks::row(i), params.output_pixels);
      const Position window = Position::of_window(params, pixel);
      const bool exists = Chunks::row(i) < rows;
      inside_[i] = exists ? mark_inside(params, window) : 0;
      row_offsets_[i] = static_cast<uint32_t>((pixel.image - first_pixel.image) * params.input_image_stride) +
                        static_cast<uint32_t>(window.offset(params)) * params.input_pixel_stride;
      existing_rows_ += exists;
    }
  }

  // Of the slices to come, the thread's chunks are zeros in place of the padding, of rows that there are not, and if
  // they lie beyond the tap's channels.
  __device__ void begin_run(bool is_beyond) {
    missing_ = is_beyond ? ~0u : 0;
#pragma unroll
    for (int i = 0; i < Chunks::ROWS; ++i) missing_ |= ((tap_ & ~inside_[i]) != 0) << i;
  }

  __device__ void copy(uint32_t stage_offset) {
#pragma unroll
    for (int i = 0; i < Chunks::ROWS; ++i) {
      copy_chunk_async(destination_ + stage_offset + Chunks::offset_from_first(i),
                       element_at(source_, row_offsets_[i], params_.scalar_bytes), missing_, i);
    }
    source_ += Tile::BLOCK_K;
  }

  // The next tap, after copies of so many of the last one's channels.
  __device__ void begin_segment(int, int copied_length) {
    source_ -= copied_length;
    uint32_t step = 0;
    params_.tap_walk.advance(tap_, step);
#pragma unroll
    for (uint32_t& offset : row_offsets_) offset += step;
  }

  // So many products of each output with one tap have been multiplied. Of the four threads that copy a row, one counts
  // those with the padding.
  __device__ void end_segment(uint32_t products) {
    int rows = existing_rows_;
#pragma unroll
    for (uint32_t inside : inside_) rows -= (multiplied_tap_ & ~inside) == 0;
    if (Chunks::chunk() == 0) padded_ += rows * products;
    uint32_t unused = 0;
    params_.tap_walk.advance(multiplied_tap_, unused);
  }

  // Products of the rows that the thread has copied, in one column.
  __device__ uint32_t padded() const { return padded_; }

 private:
  static_assert(int64_t{Chunks::ROWS} * MAX_REDUCTION < (int64_t{1} << 32), "32-bit counts of padding");

  const ConvParams& params_;
  uint32_t destination_;
  const Scalar* source_;  // the thread's chunk of the next slice, in the block's first image
  uint32_t tap_, multiplied_tap_;
  uint32_t inside_[Chunks::ROWS];
  uint32_t row_offsets_[Chunks::ROWS];  // to the tap's input in a window, modulo 2^32
  uint32_t missing_;                    // a bit of each row
  int existing_rows_ = 0;
  uint32_t padded_ = 0;
};

}  // namespace flopcuda::cuda
