// What the operands and outputs of a kernel are made of.
#pragma once

namespace flopcuda::cuda {

// Sums of float16, bfloat16 and tf32, which only tensor cores multiply, are in float32. tf32 is float32 in memory; what
// tensor cores multiply of it is in tensor_core.cuh.
enum class DataType { float32, float64, float16, bfloat16, tf32 };

constexpr int scalar_bytes(DataType type) {
  switch (type) {
    case DataType::float16:
    case DataType::bfloat16:
      return 2;
    case DataType::float64:
      return 8;
    default:
      return 4;
  }
}

// Of an output before it is rounded.
constexpr int sum_bytes(DataType type) { return type == DataType::float64 ? 8 : 4; }

// Whether its numbers can be had as float32.
constexpr bool widens_to_float32(DataType type) {
  return type == DataType::float16 || type == DataType::bfloat16 || type == DataType::tf32;
}

}  // namespace flopcuda::cuda
