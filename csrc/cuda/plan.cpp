// See plan.h. Limits are checked here, once: what the kernels assume about a problem, a plan has already ensured.
#include "cuda/plan.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <utility>

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

bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % ACCESS_BYTES == 0; }

void check_tensors(const std::string& operation, const Tensors& tensors) {
  if (!tensors.counters) reject(operation + ": the counter record is a null pointer");
  if (!tensors.output) reject(operation + ": the output is a null pointer");
  if (!tensors.input || !tensors.weight) reject(operation + ": an operand is a null pointer");
  if (is_for_tensor_cores(tensors.type) && !(is_aligned(tensors.input) && is_aligned(tensors.weight))) {
    reject(operation + ": an operand does not start at a multiple of 16 bytes");
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

// What a kernel computes: so many groups of rows by columns. An output's products are segments of one length: a
// convolution's taps, of as many channels.
struct GemmShape {
  int64_t groups;
  int64_t rows;
  int64_t columns;
  int64_t segments;
  int64_t length;
};

bool has_channels_last(const KernelInfo& kernel) {
  return kernel.operation == Operation::conv && is_for_tensor_cores(kernel.type);
}

// The shape with the rows and columns that the kernel has.
GemmShape as_computed(const KernelInfo& kernel, GemmShape shape) {
  if (has_channels_last(kernel)) std::swap(shape.rows, shape.columns);
  return shape;
}

int64_t count_blocks(const KernelInfo& kernel, const GemmShape& problem) {
  const GemmShape shape = as_computed(kernel, problem);
  return checked_product("the number of blocks", {shape.groups, divide_up(shape.rows, kernel.block_m),
                                                  divide_up(shape.columns, kernel.block_n)});
}

int64_t resident_blocks(const KernelInfo& kernel, const DeviceProperties& device) {
  const size_t index = &kernel - kernels().data();
  return index < device.resident_blocks.size() ? device.resident_blocks[index] : RESIDENT_THREADS / kernel.threads;
}

// Cycles of a multiprocessor for one slice of so many blocks that it holds at a time: as many as its unit takes for
// their multiply-adds, lanes beyond the problem included, or its schedulers for all instructions of the main loop. One
// block waits besides for its own barrier and copies; other blocks fill that time.
double estimate_slice(const KernelInfo& kernel, const DeviceProperties& device, int64_t blocks) {
  if (blocks == 0) return 0;
  const int unit = static_cast<int>(kernel.unit);
  const double multiply_adds = static_cast<double>(kernel.block_m) * kernel.block_n * kernel.block_k;
  const double issue = multiply_adds / INSTRUCTION_MACS[unit] / kernel.multiply_share / SCHEDULERS;
  const double busy = std::max(issue, multiply_adds / device.rates[unit]);
  return std::max(static_cast<double>(blocks) * busy, busy + SLICE_LATENCY);
}

// On tensor cores, no slice has products of two segments.
int64_t count_slices(const KernelInfo& kernel, const GemmShape& shape) {
  if (!is_for_tensor_cores(kernel.type)) return divide_up(shape.segments * shape.length, kernel.block_k);
  return shape.segments * divide_up(shape.length, kernel.block_k);
}

// Cycles in waves of blocks, and in each of them whole slices. A model for choosing between kernels; it ignores memory,
// but for which count_copies decides between kernels that are about as fast.
double estimate_time(const KernelInfo& kernel, const GemmShape& shape, const DeviceProperties& device) {
  const int64_t resident = std::max<int64_t>(resident_blocks(kernel, device), 1);
  const int64_t blocks = count_blocks(kernel, shape);
  const int64_t wave = device.multiprocessors * resident;
  const double tail = estimate_slice(kernel, device, divide_up(blocks % wave, device.multiprocessors));
  return static_cast<double>(count_slices(kernel, shape)) *
         (static_cast<double>(blocks / wave) * estimate_slice(kernel, device, resident) + tail);
}

// Values that all blocks copy from memory for one product of every output.
int64_t count_copies(const KernelInfo& kernel, const GemmShape& shape) {
  return checked_product("the number of copies", {count_blocks(kernel, shape), kernel.block_m + kernel.block_n});
}

int64_t count_taps(const ConvProblem& problem) {
  return checked_product("convolution: the number of taps",
                         {problem.depth.kernel_size, problem.height.kernel_size, problem.width.kernel_size});
}

// Of one image and channel.
int64_t count_inputs(const ConvProblem& problem) {
  return checked_product("convolution: the number of pixels of an input",
                         {problem.depth.in_size, problem.height.in_size, problem.width.in_size});
}
int64_t count_pixels(const ConvProblem& problem) {
  return checked_product("convolution: the number of pixels of an output",
                         {problem.depth.out_size, problem.height.out_size, problem.width.out_size});
}

// Why a kernel cannot compute a problem, after its name; empty if it can. Some kernel of every operation can.
std::string find_objection(const KernelInfo& kernel, const ConvProblem& problem) {
  const int64_t taps = count_taps(problem);
  if (taps > kernel.max_taps) {
    return " takes kernels of up to " + std::to_string(kernel.max_taps) + " taps, not of " + std::to_string(taps);
  }
  if (kernel.is_direct) return {};
  const int64_t group_channels = stored_length(kernel, problem.in_channels / problem.groups);
  if (has_channels_last(kernel)) {
    const int64_t sides = problem.depth.kernel_size + problem.height.kernel_size + problem.width.kernel_size;
    if (sides > MAX_KERNEL_SIDES) {
      return " takes kernels of depth, height and width of up to " + std::to_string(MAX_KERNEL_SIDES) +
             " together, not of " + std::to_string(sides);
    }
    if (taps * group_channels > MAX_REDUCTION) {
      return " would need rows of " + std::to_string(taps * group_channels) + " elements, but takes " +
             std::to_string(MAX_REDUCTION);
    }
  }
  // Within the images that the pixels of a block may lie in, a tile's kernel counts elements in 32 bits.
  const int64_t pixels = count_pixels(problem);
  const int64_t block_pixels = has_channels_last(kernel) ? kernel.block_m : kernel.block_n;
  const int64_t images = std::min(problem.batch, (block_pixels - 2 + pixels) / pixels + 1);
  const int64_t elements = images * problem.groups * group_channels * count_inputs(problem);
  if (elements <= INT32_MAX) return {};
  return " would need offsets of up to " + std::to_string(elements) + " elements, but has 32 bits for them";
}

std::string find_objection(const KernelInfo& kernel, const LinearProblem& problem) {
  if (problem.triangle == Triangle::none || !kernel.counts_zero) return {};
  return " counts zeros, and so multiplies all of a product, not a triangle";
}

template <class Problem>
const KernelInfo& fastest_kernel(Operation operation, DataType type, bool count_zero, const Problem& problem,
                                 const GemmShape& shape, const DeviceProperties& device) {
  constexpr double CLOSE = 1.08;  // times that the estimate does not tell apart
  struct Candidate {
    const KernelInfo* kernel;
    double time;
    int64_t copies;
  };
  std::vector<Candidate> candidates;
  for (const KernelInfo& kernel : kernels()) {
    if (kernel.operation != operation || !can_take(kernel.type, type) || kernel.counts_zero != count_zero) continue;
    if (!find_objection(kernel, problem).empty()) continue;
    candidates.push_back({&kernel, estimate_time(kernel, shape, device), count_copies(kernel, shape)});
  }
  if (candidates.empty()) reject("no CUDA kernel counts the zeros of a triangle's products");
  const auto faster = [](const Candidate& a, const Candidate& b) { return a.time < b.time; };
  const double limit = CLOSE * std::min_element(candidates.begin(), candidates.end(), faster)->time;
  const auto preferred = [limit](const Candidate& a, const Candidate& b) {
    const bool a_is_slow = a.time > limit, b_is_slow = b.time > limit;
    return a_is_slow != b_is_slow ? b_is_slow : a.copies < b.copies;
  };
  return *std::min_element(candidates.begin(), candidates.end(), preferred)->kernel;
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

GemmShape check_conv(const ConvProblem& problem) {
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
  checked_product("convolution: the number of input elements",
                  {problem.batch, problem.in_channels, count_inputs(problem)});
  checked_product("convolution: the number of output elements", {problem.batch, problem.out_channels, pixels});
  const int64_t taps = count_taps(problem), channels = problem.in_channels / problem.groups;
  check_reduction("convolution", checked_product("convolution: the number of products of an output", {channels, taps}));
  return {problem.groups, problem.out_channels / problem.groups, problem.batch * pixels, taps, channels};
}

GemmShape check_linear(const LinearProblem& problem) {
  check_range("linear: batch", problem.batch, 0, INT64_MAX);
  check_range("linear: rows", problem.rows, 0, INT64_MAX);
  check_range("linear: output features", problem.out_features, 1, COORDINATE_LIMIT);
  check_reduction("linear", problem.in_features);
  checked_product("linear: the number of input elements", {problem.batch, problem.rows, problem.in_features});
  checked_product("linear: the number of output elements", {problem.batch, problem.rows, problem.out_features});
  return {problem.batch, problem.rows, problem.out_features, 1, problem.in_features};
}

AxisParams make_axis(const Axis& axis) {
  return {static_cast<int32_t>(axis.in_size), static_cast<int32_t>(axis.out_size), static_cast<int32_t>(axis.stride),
          static_cast<int32_t>(axis.pad),     static_cast<int32_t>(axis.dilation), make_divisor(axis.kernel_size)};
}

TapWalk walk_taps(const ConvParams& params) {
  const uint32_t width = params.width.kernel_size.divisor, height = params.height.kernel_size.divisor;
  TapWalk walk;
  walk.width_end = 1u << width;
  walk.height_first = walk.width_end << 1;
  walk.height_end = walk.height_first << height;
  walk.depth_first = walk.height_end << 1;
  const uint32_t row = params.width.in_size * params.input_pixel_stride;
  const uint32_t next_row = params.height.dilation * row;
  walk.width_step = params.width.dilation * params.input_pixel_stride;
  walk.height_step = next_row - width * walk.width_step;
  walk.depth_step = params.depth.dilation * params.height.in_size * row - height * next_row;
  return walk;
}

void set_channels_last(ConvParams& params, const ConvProblem& problem, const Tensors& tensors,
                       const KernelInfo& kernel) {
  params.group_input_extent = stored_length(kernel, params.group_in_channels);
  params.input_pixel_stride = static_cast<uint32_t>(problem.groups * params.group_input_extent);
  params.input_image_stride = count_inputs(problem) * params.input_pixel_stride;
  params.input_channel_stride = 1;
  params.tap_walk = walk_taps(params);
  params.output_is_aligned = rows_are_aligned(tensors.output, problem.out_channels, kernel.type) &&
                             rows_are_aligned(tensors.output, params.group_out_channels, kernel.type);
}

ConvParams make_params(const ConvProblem& problem, const Tensors& tensors, const GemmShape& shape,
                       const KernelInfo& kernel) {
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
  const int32_t warps = kernel.threads / WARP_SIZE;
  params.step_taps = warps % params.taps;
  params.step_channel_offset = static_cast<int32_t>(warps / params.taps * params.input_channel_stride);
  params.depth = make_axis(problem.depth);
  params.height = make_axis(problem.height);
  params.width = make_axis(problem.width);
  const GemmShape computed = as_computed(kernel, shape);
  params.row_tiles = static_cast<uint32_t>(divide_up(computed.rows, kernel.block_m));
  params.column_tiles = static_cast<uint32_t>(divide_up(computed.columns, kernel.block_n));
  params.output_is_aligned = rows_are_aligned(tensors.output, output_pixels, kernel.type);
  params.scalar_bytes = scalar_bytes(kernel.type);
  if (has_channels_last(kernel)) set_channels_last(params, problem, tensors, kernel);
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
  params.row_tiles = static_cast<uint32_t>(divide_up(shape.rows, kernel.block_m));
  params.column_tiles = static_cast<uint32_t>(divide_up(shape.columns, kernel.block_n));
  params.triangle = problem.triangle;
  params.output_is_aligned = rows_are_aligned(tensors.output, problem.out_features, kernel.type);
  params.scalar_bytes = scalar_bytes(kernel.type);
  params.row_stride = static_cast<uint32_t>(stored_length(kernel, problem.in_features));
  return params;
}

template <class Problem>
void check_kernel(const KernelInfo& kernel, const Problem& problem, Operation operation) {
  if (kernel.operation != operation) reject(std::string(kernel.name) + " is a kernel of another operation");
  const std::string objection = find_objection(kernel, problem);
  if (!objection.empty()) reject(kernel.name + objection);
}

template <class Problem>
LaunchPlan make_plan(const Problem& problem, const Tensors& tensors, const GemmShape& shape, const KernelInfo& kernel,
                     Operation operation) {
  check_kernel(kernel, problem, operation);
  if (kernel.type != tensors.type) reject(std::string(kernel.name) + " is a kernel of another type than the tensors");
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

int64_t stored_length(const KernelInfo& kernel, int64_t length) {
  if (!is_for_tensor_cores(kernel.type)) return length;
  const int64_t chunk = ACCESS_BYTES / scalar_bytes(kernel.type);
  return divide_up(length, chunk) * chunk;
}

bool can_take(DataType kernel, DataType operands) {
  return kernel == operands || (kernel == DataType::float32 && is_for_tensor_cores(operands));
}

const KernelInfo& choose_kernel(const ConvProblem& problem, DataType type, bool count_zero,
                                const DeviceProperties& device) {
  return fastest_kernel(Operation::conv, type, count_zero, problem, check_conv(problem), device);
}

const KernelInfo& choose_kernel(const LinearProblem& problem, DataType type, bool count_zero,
                                const DeviceProperties& device) {
  return fastest_kernel(Operation::linear, type, count_zero, problem, check_linear(problem), device);
}

// The busiest multiprocessor is given as many blocks as any, whole waves and what remains: blocks over multiprocessors,
// rounded up.
double wave_efficiency(int64_t blocks, const DeviceProperties& device) {
  const double rounded = static_cast<double>(divide_up(blocks, device.multiprocessors)) * device.multiprocessors;
  return blocks == 0 ? 0 : static_cast<double>(blocks) / rounded;
}

Waves count_waves(const ConvProblem& problem, const KernelInfo& kernel, const DeviceProperties& device) {
  check_kernel(kernel, problem, Operation::conv);
  const int64_t blocks = count_blocks(kernel, check_conv(problem));
  return {blocks, wave_efficiency(blocks, device)};
}

Waves count_waves(const LinearProblem& problem, const KernelInfo& kernel, const DeviceProperties& device) {
  check_kernel(kernel, problem, Operation::linear);
  const int64_t blocks = count_blocks(kernel, check_linear(problem));
  return {blocks, wave_efficiency(blocks, device)};
}

LaunchPlan plan(const ConvProblem& problem, const Tensors& tensors, const KernelInfo& kernel) {
  return make_plan(problem, tensors, check_conv(problem), kernel, Operation::conv);
}

LaunchPlan plan(const LinearProblem& problem, const Tensors& tensors, const KernelInfo& kernel) {
  return make_plan(problem, tensors, check_linear(problem), kernel, Operation::linear);
}

}  // namespace flopcuda::cuda
