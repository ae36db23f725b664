// Counted convolution, forward, of groups with few output channels: depthwise above all.
//
// Bottleneck it removes: tile waste. As a GEMM, a depthwise convolution has one row, and a tile of 32 rows would
// multiply 31 lanes in vain. Here a block computes outputs of one channel and no lane multiplies but for one of them.
// What then limits is memory: lanes read and write neighbouring pixels, four outputs of a thread share each weight, and
// the inputs that neighbouring windows share come from the L1 cache.
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
    const Scalar* const bias = params.bias ? static_cast<const Scalar*>(params.bias) + block.channel : nullptr;
    const Scalar initial = bias ? *bias : Scalar(0);
    accumulators_are_empty_ = bias == nullptr;
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
  __device__ Counters counts() const { return {mul_, add_, pad_, zero_, lane_}; }

  // weight: the channel's [group_in_channels, kernel depth, height, width].
  __device__ void multiply_all_taps(const Scalar* weight) {
    const int kernel_depth = params_.depth.kernel_size.divisor;
    const int kernel_height = params_.height.kernel_size.divisor;
    const int kernel_width = params_.width.kernel_size.divisor;
    for (int channel = 0; channel < params_.group_in_channels; ++channel) {
      for (int slice = 0; slice < kernel_depth; ++slice) {
        for (int row = 0; row < kernel_height; ++row) {
          Position tap = {slice * params_.depth.dilation, row * params_.height.dilation, 0};
          int64_t offset = channel * params_.input_channel_stride + tap.offset(params_);
          for (int column = 0; column < kernel_width; ++column) {
            multiply_tap(__ldg(weight++), tap, offset);
            tap.column += params_.width.dilation;
            offset += params_.width.dilation;
          }
        }
      }
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

  // One product for each output. Outputs that the problem does not have multiply zeros.
  __device__ void multiply_tap(Scalar weight, const Position& tap, int64_t offset) {
    uint32_t inputs = 0;
    uint32_t nonzero_products = 0;
#pragma unroll
    for (int i = 0; i < OUTPUTS; ++i) {
      const bool is_inside = windows_[i].has_input_at(params_, tap);
      const Scalar input = is_inside ? __ldg(origins_[i] + offset) : Scalar(0);
      accumulators_[i] = multiply_add(weight, input, accumulators_[i]);
      lane_ += 1;
      inputs += is_inside;
      if constexpr (COUNT_ZERO) nonzero_products += (input != Scalar(0)) & (weight != Scalar(0));
    }
    mul_ += valid_outputs_;
    add_ += accumulators_are_empty_ ? 0 : valid_outputs_;
    pad_ += valid_outputs_ - inputs;
    if constexpr (COUNT_ZERO) zero_ += inputs - nonzero_products;
    accumulators_are_empty_ = false;
  }

  const ConvParams& params_;
  Position windows_[OUTPUTS];
  const Scalar* origins_[OUTPUTS];  // outside the tensor if the first tap lies in the padding
  Scalar accumulators_[OUTPUTS];
  uint32_t valid_outputs_ = 0;
  bool accumulators_are_empty_;
  // 32 bits are enough: MAX_REDUCTION bounds what a thread can issue.
  uint32_t mul_ = 0;
  uint32_t add_ = 0;
  uint32_t pad_ = 0;
  uint32_t zero_ = 0;
  uint32_t lane_ = 0;
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

#define FLOPCUDA_DEFINE_DIRECT(kernel, share, Scalar)                                             \
  FLOPCUDA_DEFINE_KERNEL(kernel, ConvParams, (DirectConfig::THREADS), conv_direct<Scalar, false>) \
  FLOPCUDA_DEFINE_KERNEL(kernel##_count_zero, ConvParams, (DirectConfig::THREADS), conv_direct<Scalar, true>)

FLOPCUDA_DIRECT_KERNELS(FLOPCUDA_DEFINE_DIRECT)

}  // namespace flopcuda::cuda
