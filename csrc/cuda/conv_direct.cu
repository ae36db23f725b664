// Counted convolution, forward, of groups with few output channels: depthwise above all.
//
// Bottleneck it removes: tile waste. As a GEMM, a depthwise convolution has one row, and a tile of 32 rows would
// multiply 31 lanes in vain. Here a block computes outputs of one channel and no lane multiplies but for one of them.
// What then limits is memory: lanes read and write neighbouring pixels, four outputs of a thread share each weight, and
// the inputs that neighbouring windows share come from the L1 cache. And integer work: for which outputs a tap lies in
// the padding is found once for eight columns of the kernel, and once for each of its rows, as bits that the taps then
// use up.
#include "cuda/conv_window.cuh"
#include "cuda/counting.cuh"
#include "cuda/kernel_entry.cuh"
#include "cuda/params.h"
#include "cuda/scalar.cuh"
#include "cuda/tiles.h"

namespace flopcuda::cuda {
namespace {

constexpr int OUTPUTS = DirectConfig::THREAD_OUTPUTS;

// The block's outputs: so many columns of one channel from the first pixel on.
struct BlockOutputs {
  int64_t channel;
  Pixel first_pixel;
  int columns;  // at most BLOCK_OUTPUTS
};

__device__ BlockOutputs locate_block(const ConvParams& params) {
  const int64_t first_column = static_cast<int64_t>(blockIdx.x % params.column_tiles) * DirectConfig::BLOCK_OUTPUTS;
  return {blockIdx.x / params.column_tiles, locate_column(first_column, params.output_pixels),
          static_cast<int>(min(params.columns - first_column, static_cast<int64_t>(DirectConfig::BLOCK_OUTPUTS)))};
}

// Four outputs of one thread, a block's width apart, and their counts. All have the same taps, so that their
// accumulators are all empty or all hold something.
template <class Scalar, bool COUNT_ZERO>
class OutputStrip {
 public:
  __device__ OutputStrip(const ConvParams& params, const BlockOutputs& block) : params_(params) {
    const int group = static_cast<int>(block.channel / params.group_out_channels);
    const Scalar initial = has_bias() ? static_cast<const Scalar*>(params.bias)[block.channel] : Scalar(0);
#pragma unroll
    for (int i = 0; i < OUTPUTS; ++i) {
      const bool exists = block_column(i) < block.columns;
      const Pixel pixel = block.first_pixel.advance(block_column(i), params.output_pixels);
      windows_[i] = exists ? Position::of_window(params, pixel) : Position::nowhere();
      origins_[i] = static_cast<const Scalar*>(params.input) + pixel.image * params.input_image_stride +
                    group * params.group_input_extent + windows_[i].offset(params);
      valid_outputs_ += exists;
      accumulators_[i] = initial;
    }
  }

  __device__ bool is_empty() const { return valid_outputs_ == 0; }

  __device__ Counters counts() const {
    Counters counts;
    counts.mul = static_cast<int64_t>(taps_) * valid_outputs_;
    // An empty accumulator is given its first product; all others are added to it.
    counts.add = has_bias() || taps_ == 0 ? counts.mul : counts.mul - valid_outputs_;
    counts.pad = counts.mul - inputs_;
    counts.zero = COUNT_ZERO ? inputs_ - nonzero_ : 0;
    counts.lane = static_cast<int64_t>(taps_) * OUTPUTS;
    return counts;
  }

  // weight: the channel's [group_in_channels, kernel depth, height, width].
  __device__ void multiply_all_taps(const Scalar* weight) {
    const int kernel_width = params_.width.kernel_size.divisor;
    for (int first_column = 0; first_column < kernel_width; first_column += MARKED_COLUMNS) {
      multiply_columns(weight + first_column, first_column, min(kernel_width - first_column, MARKED_COLUMNS));
    }
  }

  __device__ void store(const BlockOutputs& block) const {
    Scalar* const output = static_cast<Scalar*>(params_.output) + block.channel * params_.output_pixels;
#pragma unroll
    for (int i = 0; i < OUTPUTS; ++i) {
      if (block_column(i) >= block.columns) continue;
      const Pixel pixel = block.first_pixel.advance(block_column(i), params_.output_pixels);
      output[pixel.image * params_.output_image_stride + pixel.index] = accumulators_[i];
    }
  }

 private:
  __device__ static int block_column(int i) { return threadIdx.x + i * DirectConfig::THREADS; }

  // Found out twice: no register holds it in the main loop.
  __device__ bool has_bias() const { return params_.bias != nullptr; }

  // So many of the kernel's columns from this one on, in all of its rows, of all channels. weight: from this column on.
  __device__ void multiply_columns(const Scalar* weight, int first_column, int columns) {
    const uint32_t inside_columns = mark_columns(first_column, columns);
    for (int channel = 0; channel < params_.group_in_channels; ++channel) {
      for (uint32_t slice = 0; slice < params_.depth.kernel_size.divisor; ++slice) {
        for (uint32_t row = 0; row < params_.height.kernel_size.divisor; ++row) {
          const Position tap = {static_cast<int>(slice) * params_.depth.dilation,
                                static_cast<int>(row) * params_.height.dilation, first_column * params_.width.dilation};
          multiply_row(weight, channel * params_.input_channel_stride + tap.offset(params_), columns,
                       inside_columns & mark_row(tap));
          weight += params_.width.kernel_size.divisor;
        }
      }
    }
  }

  // Marks of a row's taps, those of the first in the lowest bits: a bit for each output, which is set if its window has
  // an input there, as far as columns go.
  __device__ uint32_t mark_columns(int first_column, int columns) const {
    uint32_t marks = 0;
#pragma unroll 1
    for (int column = columns - 1; column >= 0; --column) {
      const int32_t tap = (first_column + column) * params_.width.dilation;
#pragma unroll
      for (int i = OUTPUTS - 1; i >= 0; --i) marks = marks << 1 | is_inside(params_.width, windows_[i].column + tap);
    }
    return marks;
  }

  // Likewise of all taps in the row of this one, as far as rows and depths go.
  __device__ uint32_t mark_row(const Position& tap) const {
    uint32_t marks = 0;
#pragma unroll
    for (int i = 0; i < OUTPUTS; ++i) {
      const bool has_row = is_inside(params_.depth, windows_[i].depth + tap.depth) &
                           is_inside(params_.height, windows_[i].row + tap.row);
      marks |= has_row ? FIRST_OUTPUT << i : 0;
    }
    return marks;
  }

  // One product for each output and tap. Outputs that the problem does not have multiply zeros. offset: of the first
  // tap's inputs from the windows' first. inside: marks, which the taps use up.
  __device__ void multiply_row(const Scalar* weight, int64_t offset, int taps, uint32_t inside) {
    inputs_ += __popc(inside);
#pragma unroll 2  // more taps at a time take more registers than they are worth
    for (int tap = 0; tap < taps; ++tap) {
      const Scalar factor = __ldg(weight + tap);
#pragma unroll
      for (int i = 0; i < OUTPUTS; ++i) {
        const Scalar input = inside >> i & 1 ? __ldg(origins_[i] + offset) : Scalar(0);
        accumulators_[i] = multiply_add(factor, input, accumulators_[i]);
        if constexpr (COUNT_ZERO) nonzero_ += (input != Scalar(0)) & (factor != Scalar(0));
      }
      ++taps_;
      inside >>= OUTPUTS;
      offset += params_.width.dilation;
    }
    inputs_ -= __popc(inside);
  }

  // Columns of a kernel's row whose marks are in one number.
  static constexpr int MARKED_COLUMNS = 32 / OUTPUTS;
  // The first output's marks, of all of these columns.
  static constexpr uint32_t FIRST_OUTPUT = ~0u / ((1u << OUTPUTS) - 1);

  const ConvParams& params_;
  Position windows_[OUTPUTS];
  const Scalar* origins_[OUTPUTS];  // outside the tensor if the first tap lies in the padding
  Scalar accumulators_[OUTPUTS];
  uint32_t valid_outputs_ = 0;
  // 32 bits are enough: MAX_REDUCTION bounds what a thread can issue.
  uint32_t taps_ = 0;     // multiplied, for each of the outputs
  uint32_t inputs_ = 0;   // multiplied
  uint32_t nonzero_ = 0;  // products
};

template <class Scalar, bool COUNT_ZERO>
__device__ void conv_direct(const ConvParams& params) {
  __shared__ BlockOutputs block;  // its 64-bit divisions are done once
  if (threadIdx.x == 0) block = locate_block(params);
  __syncthreads();

  OutputStrip<Scalar, COUNT_ZERO> strip(params, block);
  const Scalar* const weight = static_cast<const Scalar*>(params.weight) + block.channel * params.reduction;
  if (!strip.is_empty()) strip.multiply_all_taps(weight);
  strip.store(block);
  add_block_counts<DirectConfig::THREADS>(strip.counts(), params.counters);
}

}  // namespace

#define FLOPCUDA_DEFINE_DIRECT(kernel, share, Scalar)                                                        \
  FLOPCUDA_DEFINE_KERNEL(kernel, ConvParams, (DirectConfig::THREADS, DirectConfig::MIN_BLOCKS),              \
                         conv_direct<Scalar, false>)                                                         \
  FLOPCUDA_DEFINE_KERNEL(kernel##_count_zero, ConvParams, (DirectConfig::THREADS, DirectConfig::MIN_BLOCKS), \
                         conv_direct<Scalar, true>)

FLOPCUDA_DIRECT_KERNELS(FLOPCUDA_DEFINE_DIRECT)

}  // namespace flopcuda::cuda
