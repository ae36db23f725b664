// The list of plan.h's kernels, made from that of tiles.h.
#include <type_traits>

#include "cuda/plan.h"
#include "cuda/tiles.h"

namespace flopcuda::cuda {
namespace {

template <class Scalar>
constexpr DataType TYPE_OF = std::is_same_v<Scalar, float> ? DataType::float32 : DataType::float64;

constexpr Unit fma_unit(DataType type) { return type == DataType::float64 ? Unit::fma_f64 : Unit::fma_f32; }

constexpr Unit tensor_unit(DataType type) {
  if (type == DataType::float64) return Unit::mma_f64;
  return type == DataType::tf32 ? Unit::mma_tf32 : Unit::mma_f16;
}

template <class Tile>
KernelInfo describe_tile(Operation operation, DataType type, Unit unit, double multiply_share, int32_t max_taps) {
  KernelInfo kernel{};
  kernel.operation = operation;
  kernel.type = type;
  kernel.unit = unit;
  kernel.block_m = Tile::BLOCK_M;
  kernel.block_n = Tile::BLOCK_N;
  kernel.block_k = Tile::BLOCK_K;
  kernel.threads = Tile::THREADS;
  kernel.multiply_share = multiply_share;
  kernel.max_taps = max_taps;
  return kernel;
}

template <class Tile>
KernelInfo describe_conv(double multiply_share) {
  constexpr DataType TYPE = TYPE_OF<typename Tile::Scalar>;
  return describe_tile<Tile>(Operation::conv, TYPE, fma_unit(TYPE), multiply_share, MAX_REDUCTION);
}

template <class Tile>
KernelInfo describe_linear(double multiply_share) {
  constexpr DataType TYPE = TYPE_OF<typename Tile::Scalar>;
  return describe_tile<Tile>(Operation::linear, TYPE, fma_unit(TYPE), multiply_share, 1);
}

template <class Tile>
KernelInfo describe_tensor(Operation operation, double multiply_share, int32_t max_taps) {
  return describe_tile<Tile>(operation, Tile::TYPE, tensor_unit(Tile::TYPE), multiply_share, max_taps);
}

template <class Tile>
KernelInfo describe_conv_tensor(double multiply_share, TapSource taps) {
  const bool are_tabulated = taps == TapSource::table;
  const int32_t max_taps = are_tabulated ? MAX_TABULATED_TAPS : MAX_REDUCTION;
  KernelInfo kernel = describe_tensor<Tile>(Operation::conv, multiply_share, max_taps);
  if (are_tabulated) kernel.max_sides = MAX_TABULATED_SIDES;
  kernel.part_unit = are_tabulated ? PartUnit::slice_of_taps : PartUnit::tap;
  return kernel;
}

template <class Scalar>
KernelInfo describe_direct(double multiply_share) {
  KernelInfo kernel{};
  kernel.operation = Operation::conv;
  kernel.type = TYPE_OF<Scalar>;
  kernel.is_direct = true;
  kernel.block_m = 1;
  kernel.block_n = DirectConfig::BLOCK_OUTPUTS;
  kernel.block_k = 1;
  kernel.threads = DirectConfig::THREADS;
  kernel.multiply_share = multiply_share;
  kernel.unit = fma_unit(kernel.type);
  kernel.max_taps = MAX_REDUCTION;
  return kernel;
}

template <class Config>
KernelInfo describe_few_outputs(double multiply_share) {
  constexpr DataType TYPE = TYPE_OF<typename Config::Scalar>;
  KernelInfo kernel = describe_tile<Config>(Operation::conv, TYPE, fma_unit(TYPE), multiply_share, MAX_REDUCTION);
  kernel.max_sides = MAX_FEW_OUTPUTS_SIDES;
  kernel.fixed_slices = Config::FIXED_SLICES;
  return kernel;
}

void append_pair(std::vector<KernelInfo>& list, const char* name, const char* count_zero_name, KernelInfo kernel) {
  kernel.name = name;
  list.push_back(kernel);
  kernel.name = count_zero_name;
  kernel.counts_zero = true;
  list.push_back(kernel);
}

void append_split(std::vector<KernelInfo>& list, const char* name, KernelInfo kernel) {
  kernel.name = name;
  kernel.is_split = true;
  list.push_back(kernel);
}

std::vector<KernelInfo> list_kernels() {
  std::vector<KernelInfo> list;
#define FLOPCUDA_APPEND_PAIR(kernel, info) append_pair(list, #kernel, #kernel "_count_zero", info);
#define FLOPCUDA_APPEND(kernel, info) FLOPCUDA_APPEND_PAIR(kernel, info) append_split(list, #kernel "_split", info);
#define FLOPCUDA_APPEND_CONV(kernel, share, Tile) FLOPCUDA_APPEND(kernel, describe_conv<Tile>(share))
#define FLOPCUDA_APPEND_DIRECT(kernel, share, Scalar) FLOPCUDA_APPEND_PAIR(kernel, describe_direct<Scalar>(share))
#define FLOPCUDA_APPEND_FEW_OUTPUTS(kernel, share, Config) FLOPCUDA_APPEND(kernel, describe_few_outputs<Config>(share))
#define FLOPCUDA_APPEND_LINEAR(kernel, share, Tile) FLOPCUDA_APPEND(kernel, describe_linear<Tile>(share))
#define FLOPCUDA_APPEND_CONV_TENSOR(kernel, share, Tile, taps) \
  FLOPCUDA_APPEND(kernel, describe_conv_tensor<Tile>(share, TapSource::taps))
#define FLOPCUDA_APPEND_LINEAR_TENSOR(kernel, share, Tile) \
  FLOPCUDA_APPEND(kernel, describe_tensor<Tile>(Operation::linear, share, 1))
  FLOPCUDA_CONV_KERNELS(FLOPCUDA_APPEND_CONV)
  FLOPCUDA_DIRECT_KERNELS(FLOPCUDA_APPEND_DIRECT)
  FLOPCUDA_FEW_OUTPUTS_KERNELS(FLOPCUDA_APPEND_FEW_OUTPUTS)
  FLOPCUDA_LINEAR_KERNELS(FLOPCUDA_APPEND_LINEAR)
  FLOPCUDA_CONV_TENSOR_KERNELS(FLOPCUDA_APPEND_CONV_TENSOR)
  FLOPCUDA_LINEAR_TENSOR_KERNELS(FLOPCUDA_APPEND_LINEAR_TENSOR)
  return list;
}

}  // namespace

const std::vector<KernelInfo>& kernels() {
  static const std::vector<KernelInfo> list = list_kernels();
  return list;
}

}  // namespace flopcuda::cuda
