// Counted 2-D convolution, forward, float32, of groups with few output channels: depthwise above all.
//
// Bottleneck it removes: tile waste. As a GEMM, a depthwise convolution has one row, and a tile of 32 rows would multiply
// 31 lanes in vain. Here a block computes outputs of one channel and no lane multiplies but for one of them. What then
// limits is memory: lanes read and write neighbouring pixels, four outputs of a thread share each weight, and the inputs
// that neighbouring windows share come from the L1 cache.
#include "cuda/conv2d_window.cuh"
#include "cuda/counting.cuh"
#include "cuda/params.h"
#include "cuda/tiles.h"

namespace flopcuda::cuda {
namespace {

constexpr int OUTPUTS = DirectConfig::THREAD_OUTPUTS;

// Four outputs of one channel, a block's width apart, and their counts. All have the same taps, so that they are all empty
// or all hold something.
template <bool COUNT_ZERO>
class OutputStrip {
 public:
  __device__ OutputStrip(const Conv2dParams& params, int group, const int64_t (&columns)[OUTPUTS], float bias)
      : params_(params), accumulators_are_empty_(params.bias == nullptr) {
#pragma unroll
    for (int i = 0; i < OUTPUTS; ++i) {
      const bool exists = columns[i] < params.columns;
      windows_[i] = exists ? InputWindow::of(params, group, locate_column(columns[i], params.output_plane))
                           : InputWindow::nowhere(params);
      valid_outputs_ += exists;
      values_[i] = bias;
    }
  }

  __device__ bool is_empty() const { return valid_outputs_ == 0; }
  __device__ float value(int i) const { return values_[i]; }
  __device__ const ThreadCounts& counts() const { return counts_; }

  // One product for each output. Outputs that the problem does not have multiply zeros.
  __device__ void multiply_tap(float weight, int row, int column, int64_t offset) {
    uint32_t inputs = 0;
    uint32_t nonzero_products = 0;
#pragma unroll
    for (int i = 0; i < OUTPUTS; ++i) {
      const bool is_inside = windows_[i].has_input_at(params_, row, column);
      const float input = is_inside ? __ldg(windows_[i].origin + offset) : 0.0f;
      values_[i] = __fmaf_rn(weight, input, values_[i]);
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

 private:
  const Conv2dParams& params_;
  InputWindow windows_[OUTPUTS];
  float values_[OUTPUTS];
  uint32_t valid_outputs_ = 0;
  bool accumulators_are_empty_;
  ThreadCounts counts_;
};

template <bool COUNT_ZERO>
__device__ void conv2d_direct(const Conv2dParams& params) {
  const int64_t channel = blockIdx.x / params.column_tiles;
  const int64_t first_column =
      static_cast<int64_t>(blockIdx.x % params.column_tiles) * DirectConfig::BLOCK_OUTPUTS + threadIdx.x;
  const int group = static_cast<int>(channel / params.group_out_channels);
  int64_t columns[OUTPUTS];
#pragma unroll
  for (int i = 0; i < OUTPUTS; ++i) columns[i] = first_column + i * DirectConfig::THREADS;

  OutputStrip<COUNT_ZERO> strip(params, group, columns, params.bias ? params.bias[channel] : 0.0f);
  if (!strip.is_empty()) {
    const float* weight = params.weight + channel * params.reduction;
    const int kernel_height = params.kernel_height.divisor;
    const int kernel_width = params.kernel_width.divisor;
    for (int in_channel = 0; in_channel < params.group_in_channels; ++in_channel) {
      for (int kernel_row = 0; kernel_row < kernel_height; ++kernel_row) {
        const int row = kernel_row * params.dilation_height;
        const int64_t row_offset = in_channel * params.input_plane + static_cast<int64_t>(row) * params.in_width;
        for (int kernel_column = 0; kernel_column < kernel_width; ++kernel_column) {
          const int column = kernel_column * params.dilation_width;
          strip.multiply_tap(__ldg(weight++), row, column, row_offset + column);
        }
      }
    }
  }

#pragma unroll
  for (int i = 0; i < OUTPUTS; ++i) {
    if (columns[i] >= params.columns) continue;
    const Pixel pixel = locate_column(columns[i], params.output_plane);
    params.output[pixel.image * params.output_image_stride + channel * params.output_plane + pixel.index] =
        strip.value(i);
  }
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
