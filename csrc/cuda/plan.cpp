// See plan.h. Limits are checked here, once: what the kernels assume about a problem, a plan has already ensured.
#include "cuda/plan.h"

#include <cstring>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "cuda/params.h"
#include "cuda/tiles.h"

namespace flopcuda::cuda {
namespace {

// Bounds a convolution's coordinates, padding included, and its output plane: kernels add two of them in 32 bits.
constexpr int64_t COORDINATE_LIMIT = int64_t{1} << 30;
constexpr int64_t MAX_GRID_X = (int64_t{1} << 31) - 1;

[[noreturn]] void reject(const std::string& sentence) { throw std::invalid_argument(sentence); }

int64_t checked_product(const char* what, std::initializer_list<int64_t> factors) {
  int64_t product = 1;
  for (int64_t factor : factors) {
    if (__builtin_mul_overflow(product, factor, &product)) reject(std::string(what) + " overflows a 64-bit integer");
  }
  return product;
}

int64_t divide_up(int64_t dividend, int64_t divisor) { return dividend / divisor + (dividend % divisor != 0); }

void check_range(const std::string& what, int64_t value, int64_t least, int64_t limit) {
  if (value >= least && value < limit) return;
  reject(what + " is " + std::to_string(value) + ", but the CUDA kernels take " + std::to_string(least) + " to " +
         std::to_string(limit - 1));
}

void check_reduction(const std::string& operation, int64_t reduction) {
  check_range(operation + ": the number of products of an output", reduction, 0, MAX_REDUCTION + 1);
}

void check_tensors(const std::string& operation, const Tensors& tensors) {
  if (!tensors.counters) reject(operation + ": the counter record is a null pointer");
  if (!tensors.output) reject(operation + ": the output is a null pointer");
  if (!tensors.input || !tensors.weight) reject(operation + ": an operand is a null pointer");
}

bool vectors_are_aligned(const float* matrix, int64_t row_length) {
  return reinterpret_cast<uintptr_t>(matrix) % (VECTOR * sizeof(float)) == 0 && row_length % VECTOR == 0;
}

FastDivisor make_divisor(int64_t divisor) {
  uint32_t shift = 0;
  while ((int64_t{1} << shift) < divisor) ++shift;
  const uint64_t multiplier = (uint64_t{1} << 32) * ((uint64_t{1} << shift) - divisor) / divisor + 1;
  return {static_cast<uint32_t>(divisor), static_cast<uint32_t>(multiplier), shift};
}

// What a kernel computes: so many groups of rows by columns.
struct GemmShape {
  int64_t groups;
  int64_t rows;
  int64_t columns;
};

int64_t count_blocks(const KernelInfo& kernel, const GemmShape& shape) {
  return checked_product("the number of blocks", {shape.groups, divide_up(shape.rows, kernel.block_m),
                                                  divide_up(shape.columns, kernel.block_n)});
}

// How long a kernel takes for one product of every output, in a unit of no meaning: whole waves of blocks, each as long
// as its multiply-adds, lanes beyond the problem included, and the other instructions of its main loop. A model for
// choosing between tiles, with the multiprocessors of an A100; it ignores memory.
double estimate_time(const KernelInfo& kernel, const GemmShape& shape) {
  constexpr int64_t MULTIPROCESSORS = 108;
  const int64_t blocks_per_multiprocessor = 512 / kernel.threads;
  const int64_t waves = divide_up(count_blocks(kernel, shape), MULTIPROCESSORS * blocks_per_multiprocessor);
  const int64_t lanes = blocks_per_multiprocessor * kernel.block_m * kernel.block_n;
  return static_cast<double>(waves) * static_cast<double>(lanes) / kernel.multiply_share;
}

const KernelInfo& fastest_kernel(Operation operation, bool count_zero, const GemmShape& shape) {
  const KernelInfo* best = nullptr;
  for (const KernelInfo& kernel : kernels()) {
    if (kernel.operation != operation || kernel.counts_zero != count_zero) continue;
    if (!best || estimate_time(kernel, shape) < estimate_time(*best, shape)) best = &kernel;
  }
  return *best;
}

void check_axis(const std::string& axis, int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t pad,
                int64_t dilation) {
  const std::string prefix = "conv2d: ";
  check_range(prefix + "input " + axis, in, 1, COORDINATE_LIMIT);
  check_range(prefix + "output " + axis, out, 1, COORDINATE_LIMIT);
  check_range(prefix + "kernel " + axis, kernel, 1, COORDINATE_LIMIT);
  check_range(prefix + axis + " stride", stride, 1, COORDINATE_LIMIT);
  check_range(prefix + axis + " padding", pad, 0, COORDINATE_LIMIT);
  check_range(prefix + axis + " dilation", dilation, 1, COORDINATE_LIMIT);
  check_range(prefix + "the dilated kernel's " + axis, (kernel - 1) * dilation, 0, COORDINATE_LIMIT);
  check_range(prefix + "the padded input's " + axis, (out - 1) * stride, 0, COORDINATE_LIMIT);
}

GemmShape check_conv2d(const ConvProblem& problem) {
  if (problem.depth.in_size != 1 || problem.depth.kernel_size != 1 || problem.depth.out_size != 1) {
    reject("conv3d: the CUDA kernels take images of two dimensions");
  }
  check_axis("height", problem.height.in_size, problem.height.out_size, problem.height.kernel_size,
             problem.height.stride, problem.height.pad, problem.height.dilation);
  check_axis("width", problem.width.in_size, problem.width.out_size, problem.width.kernel_size, problem.width.stride,
             problem.width.pad, problem.width.dilation);
  check_range("conv2d: batch", problem.batch, 0, INT64_MAX);
  check_range("conv2d: input channels", problem.in_channels, 1, COORDINATE_LIMIT);
  check_range("conv2d: output channels", problem.out_channels, 1, COORDINATE_LIMIT);
  check_range("conv2d: groups", problem.groups, 1, COORDINATE_LIMIT);
  if (problem.in_channels % problem.groups != 0 || problem.out_channels % problem.groups != 0) {
    reject("conv2d: " + std::to_string(problem.in_channels) + " input and " + std::to_string(problem.out_channels) +
           " output channels do not both divide into " + std::to_string(problem.groups) + " groups");
  }
  const int64_t plane = problem.height.out_size * problem.width.out_size;
  check_range("conv2d: the number of pixels in an output plane", plane, 1, COORDINATE_LIMIT);
  checked_product("conv2d: the number of input elements",
                  {problem.batch, problem.in_channels, problem.height.in_size, problem.width.in_size});
  checked_product("conv2d: the number of output elements", {problem.batch, problem.out_channels, plane});
  check_reduction("conv2d", checked_product("conv2d: the number of products of an output",
                                            {problem.in_channels / problem.groups, problem.height.kernel_size,
                                             problem.width.kernel_size}));
  return {problem.groups, problem.out_channels / problem.groups, problem.batch * plane};
}

GemmShape check_linear(const LinearProblem& problem) {
  check_range("linear: rows", problem.rows, 0, INT64_MAX);
  check_range("linear: output features", problem.out_features, 1, COORDINATE_LIMIT);
  check_reduction("linear", problem.in_features);
  checked_product("linear: the number of input elements", {problem.rows, problem.in_features});
  checked_product("linear: the number of output elements", {problem.rows, problem.out_features});
  return {1, problem.rows, problem.out_features};
}

void append_pair(std::vector<KernelInfo>& list, const char* name, const char* count_zero_name, KernelInfo kernel) {
  kernel.name = name;
  list.push_back(kernel);
  kernel.name = count_zero_name;
  kernel.counts_zero = true;
  list.push_back(kernel);
}

std::vector<KernelInfo> list_kernels() {
  std::vector<KernelInfo> list;
#define FLOPCUDA_LIST_TILE(tile, conv2d_share, linear_share, ...)                                               \
  {                                                                                                             \
    using Tile = TileConfig<__VA_ARGS__>;                                                                       \
    append_pair(list, FLOPCUDA_NAME(FLOPCUDA_CONV2D(tile)), FLOPCUDA_NAME(FLOPCUDA_CONV2D_COUNT_ZERO(tile)),    \
                {nullptr, Operation::conv2d, false, Tile::BLOCK_M, Tile::BLOCK_N, Tile::BLOCK_K, Tile::THREADS, \
                 conv2d_share});                                                                                \
    append_pair(list, FLOPCUDA_NAME(FLOPCUDA_LINEAR(tile)), FLOPCUDA_NAME(FLOPCUDA_LINEAR_COUNT_ZERO(tile)),    \
                {nullptr, Operation::linear, false, Tile::BLOCK_M, Tile::BLOCK_N, Tile::BLOCK_K, Tile::THREADS, \
                 linear_share});                                                                                \
  }
  FLOPCUDA_GEMM_TILES(FLOPCUDA_LIST_TILE)
#undef FLOPCUDA_LIST_TILE
  append_pair(list, FLOPCUDA_NAME(FLOPCUDA_CONV2D(direct)), FLOPCUDA_NAME(FLOPCUDA_CONV2D_COUNT_ZERO(direct)),
              {nullptr, Operation::conv2d, false, 1, DirectConfig::BLOCK_OUTPUTS, 1, DirectConfig::THREADS,
               DirectConfig::MULTIPLY_SHARE});
  return list;
}

Conv2dParams make_params(const ConvProblem& problem, const Tensors& tensors, const GemmShape& shape,
                         const KernelInfo& kernel) {
  Conv2dParams params{};
  params.input = tensors.input;
  params.weight = tensors.weight;
  params.bias = tensors.bias;
  params.output = tensors.output;
  params.counters = tensors.counters;
  const int64_t output_plane = problem.height.out_size * problem.width.out_size;
  params.columns = shape.columns;
  params.input_plane = problem.height.in_size * problem.width.in_size;
  params.input_image_stride = problem.in_channels * params.input_plane;
  params.output_image_stride = problem.out_channels * output_plane;
  params.output_plane = static_cast<int32_t>(output_plane);
  params.out_width = static_cast<int32_t>(problem.width.out_size);
  params.in_height = static_cast<int32_t>(problem.height.in_size);
  params.in_width = static_cast<int32_t>(problem.width.in_size);
  params.group_in_channels = static_cast<int32_t>(problem.in_channels / problem.groups);
  params.group_out_channels = static_cast<int32_t>(shape.rows);
  params.reduction =
      static_cast<int32_t>(params.group_in_channels * problem.height.kernel_size * problem.width.kernel_size);
  params.stride_height = static_cast<int32_t>(problem.height.stride);
  params.stride_width = static_cast<int32_t>(problem.width.stride);
  params.pad_top = static_cast<int32_t>(problem.height.pad);
  params.pad_left = static_cast<int32_t>(problem.width.pad);
  params.dilation_height = static_cast<int32_t>(problem.height.dilation);
  params.dilation_width = static_cast<int32_t>(problem.width.dilation);
  params.kernel_height = make_divisor(problem.height.kernel_size);
  params.kernel_width = make_divisor(problem.width.kernel_size);
  params.row_tiles = static_cast<uint32_t>(divide_up(shape.rows, kernel.block_m));
  params.column_tiles = static_cast<uint32_t>(divide_up(shape.columns, kernel.block_n));
  params.weight_is_aligned = vectors_are_aligned(tensors.weight, params.reduction);
  params.output_is_aligned = vectors_are_aligned(tensors.output, output_plane);
  return params;
}

LinearParams make_params(const LinearProblem& problem, const Tensors& tensors, const GemmShape& shape,
                         const KernelInfo& kernel) {
  LinearParams params{};
  params.input = tensors.input;
  params.weight = tensors.weight;
  params.bias = tensors.bias;
  params.output = tensors.output;
  params.counters = tensors.counters;
  params.rows = problem.rows;
  params.in_features = static_cast<int32_t>(problem.in_features);
  params.out_features = static_cast<int32_t>(problem.out_features);
  params.column_tiles = static_cast<uint32_t>(divide_up(shape.columns, kernel.block_n));
  params.input_is_aligned = vectors_are_aligned(tensors.input, problem.in_features);
  params.weight_is_aligned = vectors_are_aligned(tensors.weight, problem.in_features);
  params.output_is_aligned = vectors_are_aligned(tensors.output, problem.out_features);
  return params;
}

template <class Problem>
LaunchPlan make_plan(const Problem& problem, const Tensors& tensors, const GemmShape& shape, const KernelInfo& kernel,
                     Operation operation) {
  if (kernel.operation != operation) reject(std::string(kernel.name) + " is a kernel of another operation");
  const int64_t blocks = count_blocks(kernel, shape);
  if (blocks > 0) check_tensors(kernel.name, tensors);  // an empty tensor's pointer may be null
  if (blocks > MAX_GRID_X) {
    reject(std::string(kernel.name) + " would need " + std::to_string(blocks) + " blocks, but a grid has at most " +
           std::to_string(MAX_GRID_X));
  }
  const auto params = make_params(problem, tensors, shape, kernel);
  LaunchPlan plan;
  plan.kernel = kernel.name;
  plan.grid.x = static_cast<uint32_t>(blocks);
  plan.block.x = static_cast<uint32_t>(kernel.threads);
  plan.parameters.resize(sizeof(params));
  std::memcpy(plan.parameters.data(), &params, sizeof(params));
  return plan;
}

}  // namespace

const std::vector<KernelInfo>& kernels() {
  static const std::vector<KernelInfo> list = list_kernels();
  return list;
}

const KernelInfo& choose_kernel(const ConvProblem& problem, bool count_zero) {
  return fastest_kernel(Operation::conv2d, count_zero, check_conv2d(problem));
}

const KernelInfo& choose_kernel(const LinearProblem& problem, bool count_zero) {
  return fastest_kernel(Operation::linear, count_zero, check_linear(problem));
}

LaunchPlan plan(const ConvProblem& problem, const Tensors& tensors, const KernelInfo& kernel) {
  return make_plan(problem, tensors, check_conv2d(problem), kernel, Operation::conv2d);
}

LaunchPlan plan(const LinearProblem& problem, const Tensors& tensors, const KernelInfo& kernel) {
  return make_plan(problem, tensors, check_linear(problem), kernel, Operation::linear);
}

}  // namespace flopcuda::cuda
