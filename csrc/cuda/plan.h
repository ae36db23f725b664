// Turns a problem and a kernel into a launch: on which grid, with which parameter bytes. Host code without CUDA: the
// same plan is launched on a device (launch.h) or executed by the PTX virtual machine.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/counters.h"
#include "common/problem.h"
#include "cuda/data_type.h"
#include "cuda/device.h"

namespace flopcuda::cuda {

struct Dim3 {
  uint32_t x = 1;
  uint32_t y = 1;
  uint32_t z = 1;
};

enum class Operation { conv, linear };

// What the parts of a split reduction have whole ones of: slices of all products, slices of each tap's channels, or
// taps.
enum class PartUnit { slice, slice_of_taps, tap };
constexpr std::array<const char*, 3> PART_UNIT_NAMES = {"slice", "slice_of_taps", "tap"};

// A counted kernel and the tile that one of its blocks computes.
struct KernelInfo {
  const char* name;  // the PTX .entry
  Operation operation;
  DataType type;
  bool counts_zero;  // fills Counters::zero too
  // Outputs of a block, rows by columns, and products between two barriers. Rows are output channels of a group
  // (conv) or samples (linear); columns are pixels of all images, or output features. Convolutions on tensor cores have
  // pixels as rows and channels as columns.
  int32_t block_m;
  int32_t block_n;
  int32_t block_k;
  int32_t threads;
  // The share of multiply-adds in the instructions of its main loop, read from sm_80 SASS: how kernels of a type are
  // compared.
  double multiply_share;
  Unit unit;
  int32_t fixed_slices;           // of the main loop, as long as what a block does besides; 0 where that is little
  int32_t max_taps;               // of a convolution's kernel
  int32_t max_sides = INT32_MAX;  // its depth, height and width together
  bool is_direct;                 // a convolution without tiles: one row a block
  bool is_split;                  // several blocks share a tile, a part of the reduction each
  PartUnit part_unit;             // of those parts
};

inline bool is_for_tensor_cores(const KernelInfo& kernel) { return is_tensor_core(kernel.unit); }

// Every counted kernel, followed by its twins: one counts zeros, and one is split if it has tiles.
const std::vector<KernelInfo>& kernels();

// Kernels on tensor cores copy 16 bytes at once: behind a row of so many products, zeros make it a multiple of that. It
// is as long as this.
int64_t stored_length(const KernelInfo& kernel, int64_t length);

// A kernel, and how it computes a problem.
struct Choice {
  const KernelInfo* kernel;
  int32_t splits = 1;          // parts of the reduction: one, but for a split kernel
  bool gathers_width = false;  // whether the width's taps become channels (tap_channels.h)
};

// Device memory, dense and row-major as the problem says. The kernel adds to the counters; it does not clear them.
//
// Those of a kernel on tensor cores start at multiples of 16 bytes, but for bias and output. A linear layer's rows are
// stored_length(in_features) long. A convolution's tensors are channels-last, its channels stored_length of a group's:
// input [batch, depth, height, width, groups, stored channels], weight [out_channels, kernel depth, height, width,
// stored channels], output [batch, out depth, height, width, out_channels]. If there are too few channels to
// fill a slice, tap_channels.h says which taps become some.
//
// The sums and tickets are a split kernel's workspace, as large as workspace_of says, and null for others. The tickets
// are 0 before a launch, and so they are again after it.
struct Tensors {
  DataType type;
  const void* input;
  const void* weight;
  const void* bias;  // or null
  void* output;
  Counters* counters;
  void* sums;
  uint32_t* tickets;
};

// What the blocks of a launch share of device memory; nothing if the kernel is not split.
struct WorkspaceSize {
  int64_t sum_bytes = 0;
  int64_t tickets = 0;
};

struct LaunchPlan {
  const char* kernel;  // the PTX .entry
  Dim3 grid;           // grid.x == 0: the output is empty and there is nothing to launch
  Dim3 block;
  uint32_t shared_bytes = 0;          // dynamic shared memory; the kernels so far declare all of theirs
  std::vector<std::byte> parameters;  // the kernel's only parameter, a struct passed by value (params.h)
};

// Whether operands that may be multiplied as one type can be given to kernels of another: those that can be widened
// also to kernels of float32.
bool can_take(DataType kernel, DataType operands);

// Of a launch. std::invalid_argument, in one sentence, if the kernel cannot compute the problem, or not so.
WorkspaceSize workspace_of(const ConvProblem& problem, const Choice& choice);
WorkspaceSize workspace_of(const LinearProblem& problem, const Choice& choice);

// A launch. std::invalid_argument as above, or for a null pointer or tensors of another type.
LaunchPlan plan(const ConvProblem& problem, const Tensors& tensors, const Choice& choice);
LaunchPlan plan(const LinearProblem& problem, const Tensors& tensors, const Choice& choice);

}  // namespace flopcuda::cuda
