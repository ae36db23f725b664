// The launch planner behind a C interface, so that tests call it through ctypes. Parameters are returned as integers,
// by field, so that no test repeats their layout.
#include <cstdint>
#include <cstring>
#include <exception>
#include <string>

#include "cuda/choice.h"
#include "cuda/params.h"
#include "cuda/plan.h"

namespace {

using flopcuda::ConvProblem;
using flopcuda::LinearProblem;
using flopcuda::cuda::Choice;
using flopcuda::cuda::choose_kernel;
using flopcuda::cuda::ConvParams;
using flopcuda::cuda::DataType;
using flopcuda::cuda::KernelInfo;
using flopcuda::cuda::kernels;
using flopcuda::cuda::LaunchPlan;
using flopcuda::cuda::LinearParams;
using flopcuda::cuda::Operation;
using flopcuda::cuda::Tensors;

std::string last_error;
LaunchPlan last_plan;

// 0 if `make_plan` returns a plan, 1 if it throws: an exception must not cross the C interface.
template <class MakePlan>
int keep_plan(MakePlan make_plan) {
  try {
    last_plan = make_plan();
    return 0;
  } catch (const std::exception& error) {
    last_error = error.what();
    return 1;
  }
}

template <class Problem>
Problem read_problem(const int64_t* fields) {
  Problem problem;
  std::memcpy(&problem, fields, sizeof(problem));
  return problem;
}

template <class Params>
Params last_params() {
  Params params;
  std::memcpy(&params, last_plan.parameters.data(), sizeof(params));
  return params;
}

Tensors make_tensors(DataType type, const uint64_t* addresses) {
  return {type,
          reinterpret_cast<const void*>(addresses[0]),
          reinterpret_cast<const void*>(addresses[1]),
          reinterpret_cast<const void*>(addresses[2]),
          reinterpret_cast<void*>(addresses[3]),
          reinterpret_cast<flopcuda::Counters*>(addresses[4]),
          reinterpret_cast<void*>(addresses[5]),
          reinterpret_cast<uint32_t*>(addresses[6])};
}

template <class Problem>
LaunchPlan make_plan(const int64_t* fields, const uint64_t* addresses, int kernel, int splits, bool is_float64,
                     bool count_zero) {
  const auto problem = read_problem<Problem>(fields);
  const DataType type = is_float64 ? DataType::float64 : DataType::float32;
  const Choice choice = kernel < 0 ? choose_kernel(problem, type, count_zero, {}) : Choice{&kernels()[kernel], splits};
  return plan(problem, make_tensors(type, addresses), choice);
}

}  // namespace

extern "C" {

int flopcuda_kernel_count() { return static_cast<int>(kernels().size()); }

const char* flopcuda_kernel_name(int index) { return kernels()[index].name; }

// is a convolution, is of float64, counts zero, is direct, is split, taps at most, BLOCK_M, BLOCK_N, BLOCK_K, threads
void flopcuda_kernel_info(int index, int64_t* fields) {
  const KernelInfo& kernel = kernels()[index];
  const int64_t values[] = {kernel.operation == Operation::conv,
                            kernel.type == DataType::float64,
                            kernel.counts_zero,
                            kernel.is_direct,
                            kernel.is_split,
                            kernel.max_taps,
                            kernel.block_m,
                            kernel.block_n,
                            kernel.block_k,
                            kernel.threads};
  std::memcpy(fields, values, sizeof(values));
}

const char* flopcuda_last_error() { return last_error.c_str(); }

// kernel: an index, or -1 to let the planner choose, also how to split.
int flopcuda_plan_conv(const int64_t* problem, const uint64_t* addresses, int kernel, int splits, int is_float64,
                       int count_zero) {
  return keep_plan([&] { return make_plan<ConvProblem>(problem, addresses, kernel, splits, is_float64, count_zero); });
}

int flopcuda_plan_linear(const int64_t* problem, const uint64_t* addresses, int kernel, int splits, int is_float64,
                         int count_zero) {
  return keep_plan(
      [&] { return make_plan<LinearProblem>(problem, addresses, kernel, splits, is_float64, count_zero); });
}

// The last plan.
const char* flopcuda_plan_kernel() { return last_plan.kernel; }

// grid x, y, z; block x, y, z; dynamic shared memory; bytes of parameters
void flopcuda_plan_launch(int64_t* fields) {
  const auto& [kernel, grid, block, shared_bytes, parameters] = last_plan;
  const int64_t values[] = {grid.x,  grid.y,  grid.z,       block.x,
                            block.y, block.z, shared_bytes, static_cast<int64_t>(parameters.size())};
  std::memcpy(fields, values, sizeof(values));
}

// row tiles of a group, column tiles, columns, rows of a group, reduction, output is aligned
void flopcuda_plan_conv_params(int64_t* fields) {
  const auto params = last_params<ConvParams>();
  const int64_t values[] = {params.row_tiles,          params.column_tiles, params.columns,
                            params.group_out_channels, params.reduction,    params.output_is_aligned};
  std::memcpy(fields, values, sizeof(values));
}

// column tiles, output is aligned
void flopcuda_plan_linear_params(int64_t* fields) {
  const auto params = last_params<LinearParams>();
  const int64_t values[] = {params.row_tiles, params.column_tiles, params.output_is_aligned};
  std::memcpy(fields, values, sizeof(values));
}

// n divided by the kernel width that the last convolution was planned with.
uint32_t flopcuda_divide_by_kernel_width(uint32_t n) { return last_params<ConvParams>().width.kernel_size.divide(n); }

}  // extern "C"
