// See plan.h.
#include "cuda/plan.h"

#include <cstring>
#include <string>

#include "cuda/gemm_shape.h"
#include "cuda/params.h"
#include "cuda/tap_channels.h"
#include "cuda/tiles.h"

namespace flopcuda::cuda {
namespace {

constexpr int64_t MAX_GRID_X = (int64_t{1} << 31) - 1;

bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % ACCESS_BYTES == 0; }

void check_tensors(const KernelInfo& kernel, const Tensors& tensors) {
  const std::string operation = kernel.name;
  if (!tensors.counters) reject(operation + ": the counter record is a null pointer");
  if (!tensors.output) reject(operation + ": the output is a null pointer");
  if (!tensors.input || !tensors.weight) reject(operation + ": an operand is a null pointer");
  if (is_for_tensor_cores(kernel) && !(is_aligned(tensors.input) && is_aligned(tensors.weight))) {
    reject(operation + ": an operand does not start at a multiple of 16 bytes");
  }
}

void check_workspace(const KernelInfo& kernel, const Tensors& tensors) {
  if (kernel.is_split && !(tensors.sums && tensors.tickets)) {
    reject(std::string(kernel.name) + ": the workspace is a null pointer");
  }
}

// Whether every row of a matrix starts at a multiple of an access.
bool rows_are_aligned(const void* matrix, int64_t row_length, DataType type) {
  return is_aligned(matrix) && row_length * scalar_bytes(type) % ACCESS_BYTES == 0;
}

FastDivisor make_divisor(int64_t divisor) {
  uint32_t shift = 0;
  while ((int64_t{1} << shift) < divisor) ++shift;
  const uint64_t multiplier = (uint64_t{1} << 32) * ((uint64_t{1} << shift) - divisor) / divisor + 1;
  return {static_cast<uint32_t>(divisor), static_cast<uint32_t>(multiplier), shift};
}

AxisParams make_axis(const Axis& axis) {
  return {static_cast<int32_t>(axis.in_size), static_cast<int32_t>(axis.out_size), static_cast<int32_t>(axis.stride),
          static_cast<int32_t>(axis.pad),     static_cast<int32_t>(axis.dilation), make_divisor(axis.kernel_size)};
}

// How far a tap's input is from that of the next one.
uint32_t step_behind(const TapWalk& walk, bool ends_row, bool ends_depth) {
  return walk.width_step + (ends_row ? walk.height_step : 0) + (ends_depth ? walk.depth_step : 0);
}

void tabulate_taps(TapWalk& walk, uint32_t depths, uint32_t height, uint32_t width) {
  walk.height_first = 1u << width;
  walk.depth_first = walk.height_first << height;
  walk.gathered_first = walk.depth_first << depths;
  TabulatedTap* tap = walk.table;
  for (uint32_t depth = 0; depth < depths; ++depth) {
    for (uint32_t row = 0; row < height; ++row) {
      for (uint32_t column = 0; column < width; ++column) {
        const bool ends_row = column == width - 1;
        tap->coordinates = 1u << column | walk.height_first << row | walk.depth_first << depth;
        tap->step = step_behind(walk, ends_row, ends_row && row == height - 1);
        ++tap;
      }
    }
  }
}

TapWalk walk_taps(const ConvParams& params, bool are_tabulated) {
  const uint32_t width = params.width.kernel_size.divisor, height = params.height.kernel_size.divisor;
  TapWalk walk{};
  const uint32_t row = params.width.in_size * params.input_pixel_stride;
  const uint32_t next_row = params.height.dilation * row;
  walk.width_step = params.width.dilation * params.input_pixel_stride;
  walk.height_step = next_row - width * walk.width_step;
  walk.depth_step = params.depth.dilation * params.height.in_size * row - height * next_row;
  if (are_tabulated) tabulate_taps(walk, params.depth.kernel_size.divisor, height, width);
  return walk;
}

void set_channels_last(ConvParams& params, const ConvProblem& problem, const Tensors& tensors,
                       const KernelInfo& kernel) {
  params.group_input_extent = stored_length(kernel, params.group_in_channels);
  params.input_pixel_stride = static_cast<uint32_t>(problem.groups * params.group_input_extent);
  params.input_image_stride = count_inputs(problem) * params.input_pixel_stride;
  params.input_channel_stride = 1;
  params.tap_walk = walk_taps(params, kernel.max_sides == MAX_TABULATED_SIDES);
  params.output_is_aligned = rows_are_aligned(tensors.output, problem.out_channels, kernel.type) &&
                             rows_are_aligned(tensors.output, params.group_out_channels, kernel.type);
}

ConvParams make_params(const ConvProblem& given, const Tensors& tensors, const GemmShape& shape, const Choice& choice) {
  const KernelInfo& kernel = *choice.kernel;
  const ConvProblem problem = as_computed(choice, given);
  ConvParams params{};
  params.input = tensors.input;
  params.weight = tensors.weight;
  params.bias = tensors.bias;
  params.output = tensors.output;
  params.counters = tensors.counters;
  const int64_t output_pixels = count_pixels(problem);
  params.columns = shape.columns;
  params.input_channel_stride = count_inputs(problem);
  params.input_image_stride = problem.in_channels * params.input_channel_stride;
  params.group_input_extent = problem.in_channels / problem.groups * params.input_channel_stride;
  params.output_image_stride = problem.out_channels * output_pixels;
  params.output_pixels = static_cast<int32_t>(output_pixels);
  params.group_in_channels = static_cast<int32_t>(problem.in_channels / problem.groups);
  params.group_out_channels = static_cast<int32_t>(shape.rows);
  params.taps = static_cast<int32_t>(count_taps(problem));
  params.reduction = params.group_in_channels * params.taps;
  params.depth = make_axis(problem.depth);
  params.height = make_axis(problem.height);
  params.width = make_axis(problem.width);
  params.gathered_width = make_axis(gathered_width(choice, given));
  const GemmShape computed = as_computed(kernel, shape);
  params.row_tiles = static_cast<uint32_t>(divide_up(computed.rows, kernel.block_m));
  params.column_tiles = static_cast<uint32_t>(divide_up(computed.columns, kernel.block_n));
  params.output_is_aligned = rows_are_aligned(tensors.output, output_pixels, kernel.type);
  params.scalar_bytes = scalar_bytes(kernel.type);
  if (has_channels_last(kernel)) set_channels_last(params, problem, tensors, kernel);
  return params;
}

LinearParams make_params(const LinearProblem& problem, const Tensors& tensors, const GemmShape& shape,
                         const Choice& choice) {
  const KernelInfo& kernel = *choice.kernel;
  LinearParams params{};
  params.input = tensors.input;
  params.weight = tensors.weight;
  params.bias = tensors.bias;
  params.output = tensors.output;
  params.counters = tensors.counters;
  params.rows = problem.rows;
  params.in_features = static_cast<int32_t>(problem.in_features);
  params.out_features = static_cast<int32_t>(problem.out_features);
  params.row_tiles = static_cast<uint32_t>(divide_up(shape.rows, kernel.block_m));
  params.column_tiles = static_cast<uint32_t>(divide_up(shape.columns, kernel.block_n));
  params.triangle = problem.triangle;
  params.output_is_aligned = rows_are_aligned(tensors.output, problem.out_features, kernel.type);
  params.scalar_bytes = scalar_bytes(kernel.type);
  params.row_stride = static_cast<uint32_t>(stored_length(kernel, problem.in_features));
  return params;
}

template <class Problem>
WorkspaceSize size_workspace(const Problem& problem, const Choice& choice) {
  const KernelInfo& kernel = *choice.kernel;
  const GemmShape shape = checked_shape(choice, problem);
  if (!kernel.is_split) return {};
  const int64_t tiles = count_tiles(kernel, shape);
  const int64_t bytes =
      checked_product("the workspace", {choice.splits, tiles, kernel.block_m, kernel.block_n, sum_bytes(kernel.type)});
  return {bytes, tiles};
}

template <class Problem>
LaunchPlan make_plan(const Problem& problem, const Tensors& tensors, const Choice& choice) {
  const KernelInfo& kernel = *choice.kernel;
  const GemmShape shape = checked_shape(choice, problem);
  if (kernel.type != tensors.type) reject(std::string(kernel.name) + " is a kernel of another type than the tensors");
  const int64_t tiles = count_tiles(kernel, shape);
  if (tiles > 0) {  // an empty tensor's pointer may be null
    check_tensors(kernel, tensors);
    check_workspace(kernel, tensors);
  }
  if (tiles > MAX_GRID_X) {
    reject(std::string(kernel.name) + " would need " + std::to_string(tiles) + " blocks, but a grid has at most " +
           std::to_string(MAX_GRID_X));
  }
  auto params = make_params(problem, tensors, shape, choice);
  params.workspace = {tensors.sums, tensors.tickets};
  LaunchPlan plan;
  plan.kernel = kernel.name;
  plan.grid.x = static_cast<uint32_t>(tiles);
  plan.grid.z = static_cast<uint32_t>(choice.splits);
  plan.block.x = static_cast<uint32_t>(kernel.threads);
  plan.parameters.resize(sizeof(params));
  std::memcpy(plan.parameters.data(), &params, sizeof(params));
  return plan;
}

}  // namespace

int64_t stored_length(const KernelInfo& kernel, int64_t length) {
  if (!is_for_tensor_cores(kernel)) return length;
  const int64_t chunk = ACCESS_BYTES / scalar_bytes(kernel.type);
  return divide_up(length, chunk) * chunk;
}

bool can_take(DataType kernel, DataType operands) {
  return kernel == operands || (kernel == DataType::float32 && widens_to_float32(operands));
}

WorkspaceSize workspace_of(const ConvProblem& problem, const Choice& choice) { return size_workspace(problem, choice); }

WorkspaceSize workspace_of(const LinearProblem& problem, const Choice& choice) {
  return size_workspace(problem, choice);
}

LaunchPlan plan(const ConvProblem& problem, const Tensors& tensors, const Choice& choice) {
  return make_plan(problem, tensors, choice);
}

LaunchPlan plan(const LinearProblem& problem, const Tensors& tensors, const Choice& choice) {
  return make_plan(problem, tensors, choice);
}

}  // namespace flopcuda::cuda
