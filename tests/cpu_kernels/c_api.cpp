// The CPU kernels behind a C interface, so that tests call them through ctypes without torch's C++.
#include <omp.h>

#include <exception>

#include "kernels.h"

using flopcuda::ConvProblem;
using flopcuda::Counters;
using flopcuda::LinearProblem;
using flopcuda::cpu::Isa;

namespace {

// 0 if `action` returns, 1 if it throws: an exception must not cross the C interface.
template <class Action>
int status_of(Action action) {
  try {
    action();
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}

// Called as the others are.
template <class Scalar>
void triangular(const LinearProblem& problem, const flopcuda::cpu::Operands<Scalar>& operands, bool,
                Counters& counters) {
  flopcuda::cpu::triangular(problem, operands, counters);
}

template <class Scalar>
void conv_of_pairs(const ConvProblem& problem, const flopcuda::cpu::Operands<Scalar>& operands, bool,
                   Counters& counters) {
  flopcuda::cpu::conv_of_pairs(problem, operands, counters);
}

template <class Scalar>
void linear_of_pairs(const LinearProblem& problem, const flopcuda::cpu::Operands<Scalar>& operands, bool,
                     Counters& counters) {
  flopcuda::cpu::linear_of_pairs(problem, operands, counters);
}

}  // namespace

extern "C" {

int flopcuda_best_isa() { return static_cast<int>(flopcuda::cpu::best_isa()); }

int flopcuda_selected_isa() { return static_cast<int>(flopcuda::cpu::selected_isa()); }

const char* flopcuda_isa_name(int isa) { return flopcuda::cpu::isa_name(static_cast<Isa>(isa)); }

int flopcuda_select_isa(int isa) {
  return status_of([&] { flopcuda::cpu::select_isa(static_cast<Isa>(isa)); });
}

void flopcuda_set_num_threads(int threads) { omp_set_num_threads(threads); }

// One function for each operation and element type.
#define FLOPCUDA_EXPORT(name, kernel, Problem, Scalar)                                                              \
  int name(const Problem* problem, const Scalar* input, const Scalar* weight, const Scalar* bias, Scalar* output,   \
           int count_zero, Counters* counters) {                                                                    \
    return status_of([&] { kernel<Scalar>(*problem, {input, weight, bias, output}, count_zero != 0, *counters); }); \
  }

FLOPCUDA_EXPORT(flopcuda_conv_f32, flopcuda::cpu::conv, ConvProblem, float)
FLOPCUDA_EXPORT(flopcuda_conv_f64, flopcuda::cpu::conv, ConvProblem, double)
FLOPCUDA_EXPORT(flopcuda_linear_f32, flopcuda::cpu::linear, LinearProblem, float)
FLOPCUDA_EXPORT(flopcuda_linear_f64, flopcuda::cpu::linear, LinearProblem, double)
FLOPCUDA_EXPORT(flopcuda_triangular_f32, triangular, LinearProblem, float)
FLOPCUDA_EXPORT(flopcuda_triangular_f64, triangular, LinearProblem, double)
FLOPCUDA_EXPORT(flopcuda_conv_pairs, conv_of_pairs, ConvProblem, float)
FLOPCUDA_EXPORT(flopcuda_linear_pairs, linear_of_pairs, LinearProblem, float)

}  // extern "C"
