// Counted 2-D convolution, forward, float32, of groups with few output channels: depthwise above all.
//
// Bottleneck it removes: tile waste. As a GEMM, a depthwise convolution has one row, and a tile of 32 rows would
// multiply 31 lanes in vain. Here a block computes outputs of one channel and no lane multiplies but for one of them.
// What then limits is memory: lanes read and write neighbouring pixels, four outputs of a thread share each weight, and
// the inputs that neighbouring windows share come from the L1 cache.
#include "cuda/conv2d_window.cuh"
#include "cuda/counting.cuh"
#include "cuda/params.h"
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

__device__ BlockOutputs locate_block(const Conv2dParams& params) {
  const int64_t first_column = static_cast<int64_t>(blockIdx.x % params.column_tiles) * DirectConfig::BLOCK_OUTPUTS;
  return {blockIdx.x / params.column_tiles, locate_column(first_column, params.output_plane),
          static_cast<int>(min(params.columns - first_column, static_cast<int64_t>(DirectConfig::BLOCK_OUTPUTS)))};
}

// Four outputs of one thread, a block's width apart, and their counts. All have the same taps, so that their
// accumulators are all empty or all hold something.
template <bool COUNT_ZERO>
class OutputStrip {
 public:
  __device__ OutputStrip(const Conv2dParams& params, const BlockOutputs& block) : params_(params) {
    const int group = static_cast<int>(block.channel / params.group_out_channels);
    const float* const bias = params.bias ? params.bias + block.channel : nullptr;
    const float initial = bias ? *bias : 0.0f;
    accumulators_are_empty_ = bias == nullptr;
#pragma unroll
    for (int i = 0; i < OUTPUTS; ++i) {
      const bool exists = block_column(i) < block.columns;
      windows_[i] =
          exists ? InputWindow::of(params, group, block.first_pixel.advance(block_column(i), params.output_plane))
                 : InputWindow::nowhere(params);
      valid_outputs_ += exists;
      accumulators_[i] = initial;
    }
  }

  __device__ bool is_empty() const { return valid_outputs_ == 0; }
  __device__ const ThreadCounts& counts() const { return counts_; }

  // weight: the channel's [group_in_channels, kernel_height, kernel_width].
  __device__ void multiply_all_taps(const float* weight) {
    const int kernel_height = params_.kernel_height.divisor;
    const int kernel_width = params_.kernel_width.divisor;
    for (int channel = 0; channel < params_.group_in_channels; ++channel) {
      for (int kernel_row = 0; kernel_row < kernel_height; ++kernel_row) {
        const int row = kernel_row * params_.dilation_height;
        const int64_t row_offset = channel * params_.input_plane + static_cast<int64_t>(row) * params_.in_width;
        for (int kernel_column = 0; kernel_column < kernel_width; ++kernel_column) {
          const int column = kernel_column * params_.dilation_width;
          multiply_tap(__ldg(weight++), row, column, row_offset + column);
        }
      }
    }
  }

  __device__ void store(const BlockOutputs& block) const {
#pragma unroll
    for (int i = 0; i < OUTPUTS; ++i) {
      if (block_column(i) >= block.columns) continue;
      const Pixel pixel = block.first_pixel.advance(block_column(i), params_.output_plane);
      params_.output[pixel.image * params_.output_image_stride + block.channel * params_.output_plane + pixel.index] =
          accumulators_[i];
    }
  }

 private:
  __device__ static int block_column(int i) { return threadIdx.x + i * DirectConfig::THREADS; }

  // One product for each output. Outputs that the problem does not have multiply zeros.
  __device__ void multiply_tap(float weight, int row, int column, int64_t offset) {
    uint32_t inputs = 0;
    uint32_t nonzero_products = 0;
#pragma unroll
    for (int i = 0; i < OUTPUTS; ++i) {
      const bool is_inside = windows_[i].has_input_at(params_, row, column);
      const float input = is_inside ? __ldg(windows_[i].origin + offset) : 0.0f;
      accumulators_[i] = __fmaf_rn(weight, input, accumulators_[i]);
      counts_.lane += 1;
      inputs += is_inside;
      if constexpr (COUNT_ZERO) nonzero_products += (input != 0.0f) & (weight != 0.0f);
    }
    counts_.mul += valid_outputs_;
    counts_.add += accumulators_are_empty_ ? 0 : valid_outputs_;
    counts_.pad += valid_outputs_ - inputs;
    if constexpr (COUNT_ZERO) counts_.zero += inputs - nonzero_products;
    accumulators_are_empty_ = false;
  }

  const Conv2dParams& params_;
  InputWindow windows_[OUTPUTS];
  float accumulators_[OUTPUTS];
  uint32_t valid_outputs_ = 0;
  bool accumulators_are_empty_;
  ThreadCounts counts_;
};

template <bool COUNT_ZERO>
__device__ void conv2d_direct(const Conv2dParams& params) {
  __shared__ BlockOutputs block;  // its 64-bit divisions are done once
  if (threadIdx.x == 0) block = locate_block(params);
  __syncthreads();

  OutputStrip<COUNT_ZERO> strip(params, block);
  if (!strip.is_empty()) strip.multiply_all_taps(params.weight + block.channel * params.reduction);
  strip.store(block);
  add_block_counts<DirectConfig::THREADS>(strip.counts(), params.counters);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(DirectConfig::THREADS)
    FLOPCUDA_CONV2D(direct)(const __grid_constant__ Conv2dParams params) {
  conv2d_direct<false>(params);
}
extern "C" __global__ void __launch_bounds__(DirectConfig::THREADS)
    FLOPCUDA_CONV2D_COUNT_ZERO(direct)(const __grid_constant__ Conv2dParams params) {
  conv2d_direct<true>(params);
}

}  // namespace flopcuda::cuda
