// See gemm_shape.h.
#include "cuda/gemm_shape.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "cuda/tap_channels.h"
#include "cuda/tiles.h"

namespace flopcuda::cuda {
namespace {

// Bounds a convolution's coordinates, padding included, and its output plane: kernels add two of them in 32 bits.
constexpr int64_t COORDINATE_LIMIT = int64_t{1} << 30;

void check_range(const std::string& what, int64_t value, int64_t least, int64_t limit) {
  if (value >= least && value < limit) return;
  reject(what + " is " + std::to_string(value) + ", but the CUDA kernels take " + std::to_string(least) + " to " +
         std::to_string(limit - 1));
}

void check_reduction(const std::string& operation, int64_t reduction) {
  check_range(operation + ": the number of products of an output", reduction, 0, MAX_REDUCTION + 1);
}

void check_axis(const std::string& name, const Axis& axis) {
  const std::string prefix = "convolution: ";
  check_range(prefix + "input " + name, axis.in_size, 1, COORDINATE_LIMIT);
  check_range(prefix + "output " + name, axis.out_size, 1, COORDINATE_LIMIT);
  check_range(prefix + "kernel " + name, axis.kernel_size, 1, COORDINATE_LIMIT);
  check_range(prefix + name + " stride", axis.stride, 1, COORDINATE_LIMIT);
  check_range(prefix + name + " padding", axis.pad, 0, COORDINATE_LIMIT);
  check_range(prefix + name + " dilation", axis.dilation, 1, COORDINATE_LIMIT);
  check_range(prefix + "the dilated kernel's " + name, (axis.kernel_size - 1) * axis.dilation, 0, COORDINATE_LIMIT);
  check_range(prefix + "the padded input's " + name, (axis.out_size - 1) * axis.stride, 0, COORDINATE_LIMIT);
}

// What a part of a reduction has whole ones of.
int64_t count_units(const KernelInfo& kernel, const GemmShape& shape) {
  switch (kernel.part_unit) {
    case PartUnit::slice:
      return divide_up(shape.segments * shape.length, kernel.block_k);
    case PartUnit::slice_of_taps:
      return divide_up(shape.length, kernel.block_k);
    case PartUnit::tap:
      return shape.segments;
  }
  return 0;
}

// Of a matrix of a product's input, the numbers that are read: of a triangle, those of it.
int64_t count_read_inputs(const LinearProblem& problem) {
  const int64_t side = std::min(problem.rows, problem.in_features);
  switch (problem.triangle) {
    case Triangle::input:
      return side * (side + 1) / 2 + (problem.rows - side) * problem.in_features;
    case Triangle::upper_input:
      return side * problem.in_features - side * (side - 1) / 2;
    default:
      return problem.rows * problem.in_features;
  }
}

template <class Problem>
GemmShape checked_shape(const Choice& choice, const Problem& problem, Operation operation) {
  const KernelInfo& kernel = *choice.kernel;
  const GemmShape shape = as_computed(choice, problem, shape_of(problem));
  if (kernel.operation != operation) reject(std::string(kernel.name) + " is a kernel of another operation");
  const std::string objection = find_objection(choice, problem);
  if (!objection.empty()) reject(kernel.name + objection);
  const int64_t most = max_splits(kernel, shape);
  if (choice.splits >= 1 && choice.splits <= most) return shape;
  reject(std::string(kernel.name) + " splits this reduction into 1 to " + std::to_string(most) + " parts, not " +
         std::to_string(choice.splits));
}

}  // namespace

void reject(const std::string& sentence) { throw std::invalid_argument(sentence); }

int64_t checked_product(const char* what, std::initializer_list<int64_t> factors) {
  int64_t product = 1;
  for (int64_t factor : factors) {
    if (__builtin_mul_overflow(product, factor, &product)) reject(std::string(what) + " overflows a 64-bit integer");
  }
  return product;
}

GemmShape shape_of(const ConvProblem& problem) {
  check_axis("depth", problem.depth);
  check_axis("height", problem.height);
  check_axis("width", problem.width);
  check_range("convolution: batch", problem.batch, 0, INT64_MAX);
  check_range("convolution: input channels", problem.in_channels, 1, COORDINATE_LIMIT);
  check_range("convolution: output channels", problem.out_channels, 1, COORDINATE_LIMIT);
  check_range("convolution: groups", problem.groups, 1, COORDINATE_LIMIT);
  if (problem.in_channels % problem.groups != 0 || problem.out_channels % problem.groups != 0) {
    reject("convolution: " + std::to_string(problem.in_channels) + " input and " +
           std::to_string(problem.out_channels) + " output channels do not both divide into " +
           std::to_string(problem.groups) + " groups");
  }
  const int64_t pixels = count_pixels(problem);
  check_range("convolution: the number of pixels of an output", pixels, 1, COORDINATE_LIMIT);
  const int64_t inputs = checked_product("convolution: the number of input elements",
                                         {problem.batch, problem.in_channels, count_inputs(problem)});
  const int64_t outputs =
      checked_product("convolution: the number of output elements", {problem.batch, problem.out_channels, pixels});
  const int64_t taps = count_taps(problem), channels = problem.in_channels / problem.groups;
  const int64_t products = checked_product("convolution: the number of products of an output", {channels, taps});
  check_reduction("convolution", products);
  const int64_t values = inputs + problem.out_channels * products + outputs;
  return {problem.groups, problem.out_channels / problem.groups, problem.batch * pixels, taps, channels, values};
}

GemmShape as_computed(const Choice& choice, const ConvProblem& problem, GemmShape shape) {
  const ConvProblem computed = as_computed(choice, problem);
  shape.segments = count_taps(computed);
  shape.length = computed.in_channels / computed.groups;
  const int64_t inputs = problem.batch * problem.in_channels * count_inputs(problem);
  shape.values += count_stored_inputs(choice, problem) - inputs;
  return shape;
}

GemmShape as_computed(const Choice&, const LinearProblem&, GemmShape shape) { return shape; }

GemmShape shape_of(const LinearProblem& problem) {
  check_range("linear: batch", problem.batch, 0, INT64_MAX);
  check_range("linear: rows", problem.rows, 0, INT64_MAX);
  check_range("linear: output features", problem.out_features, 1, COORDINATE_LIMIT);
  check_reduction("linear", problem.in_features);
  checked_product("linear: the number of input elements", {problem.batch, problem.rows, problem.in_features});
  const int64_t outputs =
      checked_product("linear: the number of output elements", {problem.batch, problem.rows, problem.out_features});
  const int64_t weights =
      checked_product("linear: the number of weights", {problem.batch, problem.out_features, problem.in_features});
  const int64_t values = problem.batch * count_read_inputs(problem) + weights + outputs;
  return {problem.batch, problem.rows, problem.out_features, 1, problem.in_features, values, problem.triangle};
}

bool has_channels_last(const KernelInfo& kernel) {
  return kernel.operation == Operation::conv && is_for_tensor_cores(kernel);
}

GemmShape as_computed(const KernelInfo& kernel, GemmShape shape) {
  if (has_channels_last(kernel)) std::swap(shape.rows, shape.columns);
  return shape;
}

int64_t count_tiles(const KernelInfo& kernel, const GemmShape& problem) {
  const GemmShape shape = as_computed(kernel, problem);
  return checked_product("the number of tiles", {shape.groups, divide_up(shape.rows, kernel.block_m),
                                                 divide_up(shape.columns, kernel.block_n)});
}

int64_t max_splits(const KernelInfo& kernel, const GemmShape& shape) {
  return kernel.is_split ? std::clamp<int64_t>(count_units(kernel, shape), 1, MAX_SPLITS) : 1;
}

GemmShape largest_part(const KernelInfo& kernel, GemmShape shape, int32_t splits) {
  const int64_t units = divide_up(count_units(kernel, shape), splits);
  switch (kernel.part_unit) {
    case PartUnit::slice:
      shape.length = std::min(shape.segments * shape.length, units * kernel.block_k);
      shape.segments = 1;
      break;
    case PartUnit::slice_of_taps:
      shape.length = std::min(shape.length, units * kernel.block_k);
      break;
    case PartUnit::tap:
      shape.segments = units;
      break;
  }
  return shape;
}

int32_t fewest_splits(const KernelInfo& kernel, const GemmShape& shape, int32_t splits) {
  const int64_t units = std::max<int64_t>(count_units(kernel, shape), 1);
  return static_cast<int32_t>(divide_up(units, divide_up(units, splits)));
}

int64_t count_taps(const ConvProblem& problem) {
  return checked_product("convolution: the number of taps",
                         {problem.depth.kernel_size, problem.height.kernel_size, problem.width.kernel_size});
}

int64_t count_sides(const ConvProblem& problem) {
  return problem.depth.kernel_size + problem.height.kernel_size + problem.width.kernel_size;
}

int64_t count_inputs(const ConvProblem& problem) {
  return checked_product("convolution: the number of pixels of an input",
                         {problem.depth.in_size, problem.height.in_size, problem.width.in_size});
}
int64_t count_pixels(const ConvProblem& problem) {
  return checked_product("convolution: the number of pixels of an output",
                         {problem.depth.out_size, problem.height.out_size, problem.width.out_size});
}

std::string find_objection(const Choice& choice, const ConvProblem& given) {
  const KernelInfo& kernel = *choice.kernel;
  if (choice.gathers_width && !can_gather_width(kernel, given))
    return " does not take the taps of this width as channels";
  const ConvProblem problem = as_computed(choice, given);
  const int64_t taps = count_taps(problem);
  if (taps > kernel.max_taps) {
    return " takes kernels of up to " + std::to_string(kernel.max_taps) + " taps, not of " + std::to_string(taps);
  }
  if (kernel.is_direct) return {};
  const int64_t group_channels = stored_length(kernel, problem.in_channels / problem.groups);
  const int64_t sides = count_sides(problem);
  if (sides > kernel.max_sides) {
    return " takes kernels of depth, height and width of up to " + std::to_string(kernel.max_sides) +
           " together, not of " + std::to_string(sides);
  }
  if (has_channels_last(kernel) && taps * group_channels > MAX_REDUCTION) {
    return " would need rows of " + std::to_string(taps * group_channels) + " elements, but takes " +
           std::to_string(MAX_REDUCTION);
  }
  // Within the images that the pixels of a block may lie in, a tile's kernel counts elements in 32 bits.
  const int64_t pixels = count_pixels(problem);
  const int64_t block_pixels = has_channels_last(kernel) ? kernel.block_m : kernel.block_n;
  const int64_t images = std::min(problem.batch, (block_pixels - 2 + pixels) / pixels + 1);
  const int64_t elements = images * problem.groups * group_channels * count_inputs(problem);
  // And from a window's first input, in the padding.
  const int64_t padding =
      (problem.depth.pad * problem.height.in_size + problem.height.pad) * problem.width.in_size + problem.width.pad;
  const int64_t furthest = std::max(elements, padding);
  if (furthest <= INT32_MAX) return {};
  return " would need offsets of up to " + std::to_string(furthest) + " elements, but has 32 bits for them";
}

std::string find_objection(const Choice& choice, const LinearProblem& problem) {
  const KernelInfo& kernel = *choice.kernel;
  if (choice.gathers_width) return " has no taps";
  if (problem.triangle == Triangle::none || !kernel.counts_zero) return {};
  return " counts zeros, and so multiplies all of a product, not a triangle";
}

GemmShape checked_shape(const Choice& choice, const ConvProblem& problem) {
  return checked_shape(choice, problem, Operation::conv);
}

GemmShape checked_shape(const Choice& choice, const LinearProblem& problem) {
  return checked_shape(choice, problem, Operation::linear);
}

}  // namespace flopcuda::cuda
