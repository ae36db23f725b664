// Counted convolution, forward, as an implicit GEMM of each group: out[channel, pixel] is the sum over the
// reduction of weight[channel, k] * im2col[k, pixel].
//
// Output channels are the rows and pixels of all images the columns, so that neighbouring lanes write neighbouring
// pixels of a channel. gemm_main_loop.cuh says which bottlenecks the loop removes, im2col_loader.cuh those of its
// operand.
#include "cuda/conv_window.cuh"
#include "cuda/gemm_main_loop.cuh"
#include "cuda/im2col_loader.cuh"
#include "cuda/kernel_entry.cuh"
#include "cuda/params.h"
#include "cuda/row_major_loader.cuh"
#include "cuda/split_sums.cuh"

namespace flopcuda::cuda {
namespace {

// The outputs of one block. Kept in shared memory: registers are needed for the main loop that lies between its uses.
struct BlockOutputs {
  int64_t first_channel;
  int rows;  // output channels of the group from the first on, at most BLOCK_M
  int group;
  Pixel first_pixel;
  int columns;  // pixels from the first on, at most BLOCK_N
};

template <class Tile>
__device__ BlockOutputs locate_block(const ConvParams& params) {
  const uint32_t row_tile = blockIdx.x % params.row_tiles;
  const uint32_t column_tile = blockIdx.x / params.row_tiles % params.column_tiles;
  const int group = blockIdx.x / params.row_tiles / params.column_tiles;
  const int first_row = row_tile * Tile::BLOCK_M;
  const int64_t first_column = static_cast<int64_t>(column_tile) * Tile::BLOCK_N;
  return {static_cast<int64_t>(group) * params.group_out_channels + first_row,
          min(params.group_out_channels - first_row, Tile::BLOCK_M), group,
          locate_column(first_column, params.output_pixels),
          static_cast<int>(min(params.columns - first_column, static_cast<int64_t>(Tile::BLOCK_N)))};
}

template <class Tile, bool COUNT_ZERO>
__device__ void conv_tile(const ConvParams& params) {
  using Scalar = typename Tile::Scalar;
  using InputLoader = Im2colLoader<Tile>;
  __shared__ GemmStage<Tile> stages[Tile::STAGES];
  __shared__ typename InputLoader::Shared input_shared;
  __shared__ BlockOutputs block;
  if (threadIdx.x == 0) block = locate_block<Tile>(params);
  __syncthreads();

  const ReductionPart part = locate_part<Tile>(params.reduction, Tile::BLOCK_K);
  RowMajorLoader<Tile, Tile::BLOCK_M> weight(static_cast<const Scalar*>(params.weight) + part.first,
                                             block.first_channel, block.rows, params.reduction, part.products,
                                             params.scalar_bytes, stages[0].a);
  InputLoader input(params, block.group, block.first_pixel, block.columns, part, stages[0].b, input_shared);
  const ThreadPosition<Tile> position;
  // Found out twice, like the valid outputs: no register holds them in the main loop.
  const auto has_bias = [&] { return params.bias != nullptr && has_first_part<Tile>(); };
  const Scalar* const bias = static_cast<const Scalar*>(params.bias) + block.first_channel + position.first_row();
  const auto count_valid = [&] {
    return ValidOutputs{position.count_rows(block.rows), position.count_columns(block.columns)};
  };
  GemmTally<Tile, COUNT_ZERO> tally(count_valid());
  ThreadTile<Tile> tile;
#pragma unroll
  for (int i = 0; i < Tile::THREAD_M; ++i) {
    const bool is_needed = has_bias() && position.row_offset(i) < block.rows - position.first_row();
    const Scalar initial = is_needed ? bias[position.row_offset(i)] : Scalar(0);
#pragma unroll
    for (int j = 0; j < Tile::THREAD_N; ++j) tile.accumulators[i][j] = initial;
  }

  multiply_reduction(part.products, weight, input, stages, tile, tally);

  const auto count_additions = [&](uint32_t) {
    const ValidOutputs valid = count_valid();
    tally.issue_additions(valid.rows * valid.columns);
  };
  if (combine_parts<Tile>(params.workspace, tile.accumulators, count_additions)) {
    store_outputs(tile, position, block.rows, block.columns, params.output_pixels, params.output_is_aligned,
                  [&](int column) {
                    const Pixel pixel = block.first_pixel.advance(column, params.output_pixels);
                    return static_cast<Scalar*>(params.output) + pixel.image * params.output_image_stride +
                           block.first_channel * params.output_pixels + pixel.index;
                  });
  }
  // Each row multiplies every value of the padding.
  const int64_t padded = static_cast<int64_t>(input.padded()) * block.rows;
  add_block_counts<Tile::THREADS>(tally.counts(count_valid(), has_bias(), padded), params.counters);
}

}  // namespace

#define FLOPCUDA_DEFINE_CONV(kernel, share, Tile)                                                              \
  FLOPCUDA_DEFINE_KERNEL(kernel, ConvParams, (Tile::THREADS, Tile::min_blocks(false)), conv_tile<Tile, false>) \
  FLOPCUDA_DEFINE_KERNEL(kernel##_count_zero, ConvParams, (Tile::THREADS, Tile::min_blocks(true)),             \
                         conv_tile<Tile, true>)                                                                \
  FLOPCUDA_DEFINE_KERNEL(kernel##_split, ConvParams, (Tile::THREADS, Tile::min_blocks(false)),                 \
                         conv_tile<SplitTile<Tile>, false>)

FLOPCUDA_CONV_KERNELS(FLOPCUDA_DEFINE_CONV)

}  // namespace flopcuda::cuda
