// What a problem is to a kernel: groups of rows by columns, computed in blocks; and which problems a kernel can
// compute. Limits are checked here, once: what the kernels assume about a problem, a shape has already ensured.
//
// Sentences about what cannot be computed are std::invalid_argument.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include "common/problem.h"
#include "cuda/plan.h"

namespace flopcuda::cuda {

// What a kernel computes: so many groups of rows by columns. An output's products are segments of one length: a
// convolution's taps, of as many channels.
struct GemmShape {
  int64_t groups;
  int64_t rows;
  int64_t columns;
  int64_t segments;
  int64_t length;
  int64_t values;  // of both operands and the output, that memory moves
  Triangle triangle = Triangle::none;
};

// std::invalid_argument if the problem is none, or more than any kernel takes.
GemmShape shape_of(const ConvProblem& problem);
GemmShape shape_of(const LinearProblem& problem);

bool has_channels_last(const KernelInfo& kernel);

// A problem's shape with the segments and values that it has as it is computed (tap_channels.h).
GemmShape as_computed(const Choice& choice, const ConvProblem& problem, GemmShape shape);
GemmShape as_computed(const Choice& choice, const LinearProblem& problem, GemmShape shape);

// The shape with the rows and columns that the kernel has.
GemmShape as_computed(const KernelInfo& kernel, GemmShape shape);

int64_t count_tiles(const KernelInfo& kernel, const GemmShape& shape);

// Into how many parts the kernel can split the reduction; 1 if it is not split.
int64_t max_splits(const KernelInfo& kernel, const GemmShape& shape);

// The shape of the largest of so many parts, and the fewest parts of which none is larger.
GemmShape largest_part(const KernelInfo& kernel, GemmShape shape, int32_t splits);
int32_t fewest_splits(const KernelInfo& kernel, const GemmShape& shape, int32_t splits);

int64_t count_taps(const ConvProblem& problem);
int64_t count_sides(const ConvProblem& problem);  // of the kernel: depth, height and width together

// Of one image and channel.
int64_t count_inputs(const ConvProblem& problem);
int64_t count_pixels(const ConvProblem& problem);

// Why a kernel cannot compute a problem so, whatever the parts of the reduction, after its name; empty if it can. Some
// kernel of every operation can.
std::string find_objection(const Choice& choice, const ConvProblem& problem);
std::string find_objection(const Choice& choice, const LinearProblem& problem);

// The shape of a problem as it is computed. std::invalid_argument if the kernel cannot compute it so, not in so many
// parts, or is of another operation.
GemmShape checked_shape(const Choice& choice, const ConvProblem& problem);
GemmShape checked_shape(const Choice& choice, const LinearProblem& problem);

[[noreturn]] void reject(const std::string& sentence);

int64_t checked_product(const char* what, std::initializer_list<int64_t> factors);

inline int64_t divide_up(int64_t dividend, int64_t divisor) { return dividend / divisor + (dividend % divisor != 0); }

}  // namespace flopcuda::cuda
