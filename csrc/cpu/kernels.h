// The counted CPU kernels, as the rest of the project sees them: raw pointers, a shape, a counter record.
//
// How a multiply-add gets from here to a counter:
//   conv.cpp, linear.cpp   state the operation as a matrix product: rows x depth times depth x columns
//   row_panels.*           packs the rows (weights of a convolution, input rows of a linear layer)
//   kept_weight.*          has a weight that stays packed from one call to the next
//   transpose.*            transposes what is packed; and in dense_copy.*, images of the other memory format
//   column_source.h        says how the columns are laid out and packed; im2col.*, shifted_windows.* and
//                          transposed_columns.* do it
//   gemm.*                 blocks the product for the caches, splits it among threads, walks the tiles
//   tile_kernel.h          multiplies register tiles; the counters are incremented here, beside the multiply-add
//   dot_kernel.h, widen.h  do so for the dot products of a linear layer with few rows, where nothing is packed, and
//                          for those of triangular.cpp
//   depthwise.*            convolves plane by plane where every output channel has one input channel of its own;
//   plane_kernel.h         is the micro-kernel for that
//   few_outputs.*          convolves planes that have fewer outputs than taps, line by line of the kernel;
//   line_kernel.h          is the micro-kernel for that; frame.h pads the planes of both, planes.h shares them
//   pair_kernel.h          is tile_kernel.h for pairs of bfloat16 numbers; pairs.* makes such pairs
//   micro_kernel_*.cpp, dot_kernel_*.cpp, pair_kernel_*.cpp
//                          compile those templates for one instruction set each; dispatch.cpp picks one at run time
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "../common/counters.h"
#include "../common/problem.h"
#include "half.h"

namespace flopcuda::cpu {

enum class Isa { kPortable, kAvx2, kAvx512 };

// The widest instruction set that both this build and this CPU have.
Isa best_isa();

// The instruction set that the kernels run with: best_isa() until select_isa() is called.
Isa selected_isa();

// Makes later calls run with `isa`. Throws std::invalid_argument if this build or this CPU lacks it.
void select_isa(Isa isa);

const char* isa_name(Isa isa);

class KeptWeight;

// Where the elements of a weight lie: from one output channel to the next, from one of its input channels to the next,
// and the taps of a channel, none of which are listed if they are dense, in their order.
struct WeightLayout {
  int64_t out_channel, in_channel;
  std::vector<int64_t> taps = {};
};

// What a kernel reads and writes. `bias` may be null.
template <class Scalar, class Weight = Scalar>
struct Operands {
  const Scalar* input;
  const Weight* weight;
  const Scalar* bias;
  Scalar* output;
  std::optional<WeightLayout> layout = {};  // none of a dense weight
  // Of a dense weight, what is packed already and stays so; not where zeros are counted.
  KeptWeight* kept = nullptr;
};

// For float and double. All kernels add their counts to `counters`; `counters.zero` only if `count_zero`. A problem
// without output elements does nothing; one without products (R = 0) must be rejected by the caller. They run on
// omp_get_max_threads() threads. Throws std::bad_alloc, and nothing else.
template <class Scalar>
void conv(const ConvProblem& problem, const Operands<Scalar>& operands, bool count_zero, Counters& counters);

template <class Scalar>
void linear(const LinearProblem& problem, const Operands<Scalar>& operands, bool count_zero, Counters& counters);

// Whether the operands are multiplied as they lie in memory: packing the weight would take longer.
bool has_few_rows(const LinearProblem& problem);

// Whether a convolution is of planes that have few outputs each, by kernels that are large planes themselves: two axes,
// few output channels in a group, and fewer outputs of each than its kernel has taps. Nothing is packed, nor in pairs.
bool has_few_outputs(const ConvProblem& problem);

// Whether the weight need not be dense, and whether not even the taps of a channel.
bool takes_weight_layout(const ConvProblem& problem);
bool takes_tap_layout(const ConvProblem& problem);

// Whether packing the weight takes a good part of the time, so that it is worth the memory to keep it.
bool is_worth_keeping(const ConvProblem& problem);
bool is_worth_keeping(const LinearProblem& problem);

// A linear layer that has few rows; Weight is BFloat16 or Float16, for Scalar = float. Converting the weight would take
// longer, too.
template <class Scalar, class Weight>
void linear_of_few_rows(const LinearProblem& problem, const Operands<Scalar, Weight>& operands, bool count_zero,
                        Counters& counters);

// Whether this CPU multiplies bfloat16, with the selected instruction set; or else widening it beforehand is faster.
bool multiplies_pairs();

// As conv() and linear(), of bfloat16 operands in pairs (pairs.h), each in the place of a float; the problem is that of
// the numbers. Bias and output are float. No zeros are counted.
void conv_of_pairs(const ConvProblem& problem, const Operands<float>& operands, Counters& counters);
void linear_of_pairs(const LinearProblem& problem, const Operands<float>& operands, Counters& counters);

// A batch of products of which a triangle is wanted, without a bias. Zeros are not counted.
template <class Scalar>
void triangular(const LinearProblem& problem, const Operands<Scalar>& operands, Counters& counters);

}  // namespace flopcuda::cpu
