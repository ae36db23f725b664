// Copies slices of the im2col matrix of a channels-last convolution without storing that matrix: a row is an output
// pixel, a segment of the reduction is a tap, and a tap's channels are neighbours in memory.
//
// Bottlenecks it removes: in NCHW, neighbours along the reduction are whole images apart, and a number of 16 bits is
// less than cp.async can copy; here a copy of 16 bytes moves eight of them. And integer work: which copies are of zeros
// is asked once a tap (tap_windows.cuh), which is followed by the next with an addition for each row.
#pragma once

#include <cstdint>

#include "cuda/conv_window.cuh"
#include "cuda/params.h"
#include "cuda/split_sums.cuh"
#include "cuda/tap_windows.cuh"
#include "cuda/tensor_main_loop.cuh"

namespace flopcuda::cuda {

// What a block multiplies of a reduction: of so many taps, so many channels each.
struct TapsPart {
  ReductionPart taps;
  ReductionPart channels;
};

template <class Tile, class Taps>
class WindowChunkLoader {
  using Chunks = CopiedChunks<Tile, Tile::BLOCK_M, A_SWAP<Tile>>;
  using Scalar = TensorScalar<Tile::TYPE>;

 public:
  // part: of the reduction, that is copied. first_pixel: the block's first row. rows: how many the problem has from
  // there on. slice: of the first stage.
  __device__ WindowChunkLoader(const ConvParams& params, int group, const TapsPart& part, Pixel first_pixel, int rows,
                               const char* slice)
      : params_(params),
        destination_(shared_address(slice[Chunks::first_offset()])),
        source_(static_cast<const Scalar*>(params.input) + first_pixel.image * params.input_image_stride +
                group * params.group_input_extent + part.channels.first + first_product<Tile>()),
        taps_(params, part.taps.first) {
#pragma unroll
    for (int i = 0; i < Chunks::ROWS; ++i) {
      const Pixel pixel = first_pixel.advance(Chunks::row(i), params.output_pixels);
      const Position window = Position::of_window(params, pixel);
      const bool exists = Chunks::row(i) < rows;
      taps_.set_row(i, params, window, exists);
      row_offsets_[i] =
          static_cast<uint32_t>((pixel.image - first_pixel.image) * params.input_image_stride) +
          (static_cast<uint32_t>(window.offset(params)) + taps_.first_offset()) * params.input_pixel_stride;
    }
    taps_.begin();
  }

  // Of the slices to come, the thread's chunks are zeros in place of the padding, of rows that there are not, and if
  // they lie beyond the tap's channels.
  __device__ void begin_run(bool is_beyond) {
    if (is_beyond) taps_.miss_all();
  }

  __device__ void copy(uint32_t stage_offset) {
#pragma unroll
    for (int i = 0; i < Chunks::ROWS; ++i) {
      copy_chunk_async(destination_ + stage_offset + Chunks::offset_from_first(i),
                       element_at(source_, row_offsets_[i], params_.scalar_bytes), taps_.missing(), 1u << i);
    }
    source_ += Tile::BLOCK_K;
  }

  // The next tap, after copies of so many of the last one's channels.
  __device__ void begin_segment(int, int copied_length) {
    source_ -= copied_length;
    const uint32_t step = taps_.advance();
#pragma unroll
    for (uint32_t& offset : row_offsets_) offset += step;
  }

  // The tap's copies are of so many products of each output.
  __device__ void count_segment(uint32_t products) { padded_ += taps_.count_padding(products); }

  // Products with the padding of the rows that the thread has copied, in one column. Of the four threads that copy a
  // row, one counts them.
  __device__ uint32_t padded() const { return Chunks::chunk() == 0 ? padded_ : 0; }

 private:
  static_assert(int64_t{Chunks::ROWS} * MAX_REDUCTION < (int64_t{1} << 32), "32-bit counts of padding");

  const ConvParams& params_;
  uint32_t destination_;
  const Scalar* source_;  // the thread's chunk of the next slice, in the block's first image
  Taps taps_;
  uint32_t row_offsets_[Chunks::ROWS];  // to the tap's input in a window, modulo 2^32
  uint32_t padded_ = 0;
};

}  // namespace flopcuda::cuda
