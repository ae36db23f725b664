// Counted convolution, forward, of few outputs a channel that are sums of many products: the gradient of a depthwise
// layer's weight above all, which has as many taps as that layer has outputs in an image.
//
// Bottleneck it removes: idle lanes. Nine outputs are no tile, and a thread for each of them leaves a warp's other
// lanes nothing to multiply. Here a block computes nine outputs of one channel, or 25, and its threads share their
// products: each keeps a sum of every output over taps of its own, and the block adds these up at the end, in a fixed
// order. Lanes read neighbouring taps; each weight is read once for all outputs, as is a tap decoded, and what their
// windows share comes from the L1 cache. For which outputs a tap lies in the padding, a table says, as a bit of each:
// of one coordinate along each axis.
#include "cuda/async_copy.cuh"
#include "cuda/conv_window.cuh"
#include "cuda/counting.cuh"
#include "cuda/kernel_entry.cuh"
#include "cuda/params.h"
#include "cuda/scalar.cuh"
#include "cuda/split_sums.cuh"
#include "cuda/tiles.h"

namespace flopcuda::cuda {
namespace {

// The block's outputs: so many columns of one channel from the first pixel on.
struct BlockOutputs {
  int group;
  int64_t channel;
  Pixel first_pixel;
  int columns;  // at most BLOCK_N

  __device__ Pixel pixel(const ConvParams& params, int column) const {
    return first_pixel.advance(column, params.output_pixels);
  }
};

template <class Config>
__device__ BlockOutputs locate_block(const ConvParams& params) {
  const uint32_t tile = blockIdx.x / params.row_tiles, row = blockIdx.x % params.row_tiles;
  const int group = static_cast<int>(tile / params.column_tiles);
  const int64_t first_column = static_cast<int64_t>(tile % params.column_tiles) * Config::BLOCK_N;
  return {group, static_cast<int64_t>(group) * params.group_out_channels + row,
          locate_column(first_column, params.output_pixels),
          static_cast<int>(min(params.columns - first_column, static_cast<int64_t>(Config::BLOCK_N)))};
}

// What all threads of a block read of its outputs. Every thread takes part in making it.
template <class Config>
class OutputTable {
 public:
  __device__ void fill(const ConvParams& params) {
    if (threadIdx.x == 0) block = locate_block<Config>(params);  // its 64-bit divisions are done once
    __syncthreads();
    if (threadIdx.x < Config::BLOCK_N) locate_window(params, threadIdx.x);
    __syncthreads();
    const int height_first = params.width.kernel_size.divisor;
    const int depth_first = height_first + params.height.kernel_size.divisor;
    mark(params.width, &Position::column, 0);
    mark(params.height, &Position::row, height_first);
    mark(params.depth, &Position::depth, depth_first);
    __syncthreads();
  }

  BlockOutputs block;
  // From the first pixel's image on, where a window would read its first input, modulo 2^32: inputs are within 2^31.
  uint32_t origins[Config::BLOCK_N];
  // Of each coordinate of a tap, those of the width first, and of the depth last: a bit for each output, which is set
  // if its window reads an input there.
  typename Config::Marks inside[MAX_FEW_OUTPUTS_SIDES];

 private:
  __device__ void locate_window(const ConvParams& params, int output) {
    const Pixel pixel = block.pixel(params, output);
    windows_[output] = output < block.columns ? Position::of_window(params, pixel) : Position::nowhere();
    origins[output] = static_cast<uint32_t>((pixel.image - block.first_pixel.image) * params.input_image_stride +
                                            windows_[output].offset(params));
  }

  __device__ void mark(const AxisParams& axis, int32_t Position::* coordinate, int first) {
#pragma unroll 1
    for (int tap = threadIdx.x; tap < static_cast<int>(axis.kernel_size.divisor); tap += Config::THREADS) {
      uint32_t marks = 0;
#pragma unroll
      for (int i = 0; i < Config::BLOCK_N; ++i) {
        marks |= static_cast<uint32_t>(is_inside(axis, windows_[i].*coordinate + tap * axis.dilation)) << i;
      }
      inside[first + tap] = static_cast<typename Config::Marks>(marks);
    }
  }

  Position windows_[Config::BLOCK_N];
};

// A tap of the reduction: how far it reads from a window's first input, modulo 2^32, and by which outputs.
struct Tap {
  uint32_t offset;
  uint32_t inside;

  template <class Marks>
  __device__ Tap(const ConvParams& params, const Marks* inside_at, uint32_t index) {
    const ReductionStep step(params, index);
    offset = step.offset(params);
    asm("" : "+r"(offset));  // or the compiler would compute it anew for every output
    const Marks* const inside_rows = inside_at + params.width.kernel_size.divisor;
    const Marks* const inside_depths = inside_rows + params.height.kernel_size.divisor;
    inside = inside_at[step.column] & inside_rows[step.row] & inside_depths[step.depth];
  }
};

// How many taps a thread has multiplied, and how many inputs with them, in one number: of a few taps at most.
class TapCounts {
 public:
  static constexpr int MAX_TAPS = 1 << 8;

  // A product of each output is issued.
  __device__ void issue(const Tap& tap) { counts_ += TAP + __popc(tap.inside); }

  __device__ uint32_t taps() const { return counts_ / TAP; }
  __device__ uint32_t inputs() const { return counts_ % TAP; }

 private:
  static constexpr uint32_t TAP = 1 << 14;
  static_assert(MAX_TAPS * 32 < TAP && uint64_t{MAX_TAPS} * (TAP + 32) < (uint64_t{1} << 32), "of 32 outputs at most");

  uint32_t counts_ = 0;
};

// What the warps of a block have summed up.
template <class Config>
struct WarpSums {
  typename Config::Scalar sums[Config::WARPS][Config::BLOCK_N];
  bool are_empty[Config::WARPS];
};

// One thread's sums of all outputs of the block, and its counts. All outputs have the same taps, so that the sums are
// all empty or all hold something. The threads that have taps are the block's first ones, and every block has some:
// where sums are empty, so are those of the threads behind.
template <class Config, bool COUNT_ZERO>
class PartialSums {
  using Scalar = typename Config::Scalar;
  static constexpr int OUTPUTS = Config::BLOCK_N;

 public:
  __device__ PartialSums(const ConvParams& params, const OutputTable<Config>& table)
      : params_(params),
        inside_at_(table.inside),
        images_(static_cast<const Scalar*>(params.input) + table.block.first_pixel.image * params.input_image_stride +
                table.block.group * params.group_input_extent),
        valid_outputs_(table.block.columns) {
    asm("" : "+l"(images_));  // or the compiler would add it up anew for every product
    const Scalar initial = held_bias() ? static_cast<const Scalar*>(params.bias)[table.block.channel] : Scalar(0);
#pragma unroll
    for (int i = 0; i < OUTPUTS; ++i) {
      origins_[i] = table.origins[i];
      sums_[i] = initial;
    }
  }

  __device__ Counters counts() const {
    Counters counts;
    counts.mul = static_cast<int64_t>(taps_) * valid_outputs_;
    // An empty sum is given its first product; all others are added to it.
    counts.add = held_bias() || taps_ == 0 ? counts.mul : counts.mul - valid_outputs_;
    counts.add += additions_;
    counts.pad = counts.mul - inputs_;
    counts.zero = COUNT_ZERO ? inputs_ - nonzero_ : 0;
    counts.lane = static_cast<int64_t>(taps_) * OUTPUTS;
    return counts;
  }

  // weight: the channel's [group_in_channels, kernel depth, height, width].
  __device__ void multiply_taps(const Scalar* weight, const ReductionPart& part) {
    constexpr int RUN = TapCounts::MAX_TAPS * Config::THREADS;
    const int end = part.first + part.products;
#pragma unroll 1
    for (int first = part.first; first < end; first += RUN) multiply_run(weight, first, min(first + RUN, end));
  }

  // The sum of one output over all threads of the block, for the thread of that number. Every thread takes part.
  __device__ Scalar add_threads(WarpSums<Config>& scratch) {
    add_lanes();
    const int warp = threadIdx.x / WARP_SIZE, output = threadIdx.x;
    if (threadIdx.x % WARP_SIZE == 0) {
      scratch.are_empty[warp] = are_empty();
#pragma unroll
      for (int i = 0; i < OUTPUTS; ++i) scratch.sums[warp][i] = sums_[i];
    }
    __syncthreads();
    if (output >= valid_outputs_) return Scalar(0);
    Scalar sum = scratch.sums[0][output];
    for (int other = 1; other < Config::WARPS && !scratch.are_empty[other]; ++other) {
      sum += scratch.sums[other][output];
      ++additions_;
    }
    return sum;
  }

  // Makes that sum, of a part of the reduction, the sum of all parts; false where another block is to store it.
  __device__ bool add_parts(Scalar& sum) {
    if constexpr (Config::IS_SPLIT) {
      using Memory = TileSums<OUTPUTS, Scalar, 1>;
      const bool has_output = static_cast<int>(threadIdx.x) < valid_outputs_;
      Scalar sums[1] = {sum};
      if (has_output) Memory(params_.workspace, part_index()).write(sums);
      if (!takes_last_ticket(params_.workspace)) return false;
      if (!has_output) return true;
      Memory(params_.workspace, 0).read(sums);
      for (uint32_t part = 1; part < gridDim.z; ++part) {
        Memory(params_.workspace, part).add_to(sums);
        ++additions_;
      }
      sum = sums[0];
    }
    return true;
  }

 private:
  // Found out anew: no register holds it in the main loop.
  __device__ bool held_bias() const { return params_.bias && threadIdx.x == 0 && has_first_part<Config>(); }

  __device__ bool are_empty() const { return taps_ == 0 && !held_bias(); }

  __device__ void multiply_run(const Scalar* weight, int first, int end) {
    TapCounts counts;
#pragma unroll 1
    for (int tap = first + threadIdx.x; tap < end; tap += Config::THREADS) {
      const Scalar factor = __ldg(element_at(weight, tap, params_.scalar_bytes));
      multiply_tap(factor, Tap(params_, inside_at_, tap), counts);
    }
    taps_ += counts.taps();
    inputs_ += counts.inputs();
  }

  // One product for each output. Outputs that the problem does not have multiply zeros.
  __device__ void multiply_tap(Scalar weight, const Tap& tap, TapCounts& counts) {
    Scalar inputs[OUTPUTS];  // all on their way at a time
#pragma unroll
    for (int i = 0; i < OUTPUTS; ++i) {
      inputs[i] = tap.inside >> i & 1 ? __ldg(images_ + (origins_[i] + tap.offset)) : Scalar(0);
    }
#pragma unroll
    for (int i = 0; i < OUTPUTS; ++i) {
      sums_[i] = multiply_add(weight, inputs[i], sums_[i]);
      if constexpr (COUNT_ZERO) nonzero_ += (inputs[i] != Scalar(0)) & (weight != Scalar(0));
    }
    counts.issue(tap);
  }

  // Makes the sums of a warp's first lane those of all its lanes.
  __device__ void add_lanes() {
    constexpr uint32_t ALL_LANES = 0xffffffffu;
    const int lane = threadIdx.x % WARP_SIZE, is_empty = are_empty();
#pragma unroll
    for (int distance = WARP_SIZE / 2; distance > 0; distance /= 2) {
      const bool other_is_empty = __shfl_down_sync(ALL_LANES, is_empty, distance);
      const bool is_added = lane < distance && !other_is_empty;
#pragma unroll
      for (int i = 0; i < OUTPUTS; ++i) {
        const Scalar other = __shfl_down_sync(ALL_LANES, sums_[i], distance);
        if (is_added) sums_[i] += other;
      }
      if (is_added) additions_ += valid_outputs_;
    }
  }

  const ConvParams& params_;
  const typename Config::Marks* const inside_at_;
  const Scalar* images_;
  uint32_t origins_[OUTPUTS];
  Scalar sums_[OUTPUTS];
  const int valid_outputs_;
  // 32 bits are enough: MAX_REDUCTION bounds what a thread can issue.
  uint32_t taps_ = 0;       // multiplied, for each of the outputs
  uint32_t inputs_ = 0;     // multiplied
  uint32_t nonzero_ = 0;    // products
  uint32_t additions_ = 0;  // but those of multiply-adds
};

template <class Config, bool COUNT_ZERO>
__device__ void conv_few_outputs(const ConvParams& params) {
  using Scalar = typename Config::Scalar;
  __shared__ OutputTable<Config> table;
  __shared__ WarpSums<Config> scratch;
  table.fill(params);

  PartialSums<Config, COUNT_ZERO> partial(params, table);
  const BlockOutputs& block = table.block;
  partial.multiply_taps(static_cast<const Scalar*>(params.weight) + block.channel * params.reduction,
                        locate_part<Config>(params.reduction, Config::THREADS));
  Scalar sum = partial.add_threads(scratch);
  if (partial.add_parts(sum) && static_cast<int>(threadIdx.x) < block.columns) {
    const Pixel pixel = block.pixel(params, threadIdx.x);
    static_cast<Scalar*>(
        params.output)[pixel.image * params.output_image_stride + block.channel * params.output_pixels + pixel.index] =
        sum;
  }
  add_block_counts<Config::THREADS>(partial.counts(), params.counters);
}

}  // namespace

#define FLOPCUDA_DEFINE_FEW_OUTPUTS(kernel, share, Config)                                                           \
  FLOPCUDA_DEFINE_KERNEL(kernel, ConvParams, (Config::THREADS, Config::MIN_BLOCKS), conv_few_outputs<Config, false>) \
  FLOPCUDA_DEFINE_KERNEL(kernel##_count_zero, ConvParams, (Config::THREADS, Config::MIN_BLOCKS),                     \
                         conv_few_outputs<Config, true>)                                                             \
  FLOPCUDA_DEFINE_KERNEL(kernel##_split, ConvParams, (Config::THREADS, Config::MIN_BLOCKS),                          \
                         conv_few_outputs<SplitTile<Config>, false>)

FLOPCUDA_FEW_OUTPUTS_KERNELS(FLOPCUDA_DEFINE_FEW_OUTPUTS)

}  // namespace flopcuda::cuda
