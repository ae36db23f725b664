// The CPU kernels behind a C interface, so that tests call them through ctypes without torch's C++.
#include <omp.h>

#include <exception>

#include "kernels.h"

using flopcuda::Conv2dProblem;
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

}  // namespace

extern "C" {

int flopcuda_best_isa() { return static_cast<int>(flopcuda::cpu::best_isa()); }

int flopcuda_selected_isa() { return static_cast<int>(flopcuda::cpu::selected_isa()); }

const char* flopcuda_isa_name(int isa) { return flopcuda::cpu::isa_name(static_cast<Isa>(isa)); }

int flopcuda_select_isa(int isa) {
  return status_of([&] { flopcuda::cpu::select_isa(static_cast<Isa>(isa)); });
}

void flopcuda_set_num_threads(int threads) { omp_set_num_threads(threads); }

int flopcuda_conv2d(const Conv2dProblem* problem, const float* input, const float* weight, const float* bias,
                    float* output, int count_zero, Counters* counters) {
  return status_of([&] { flopcuda::cpu::conv2d(*problem, input, weight, bias, output, count_zero != 0, *counters); });
}

int flopcuda_linear(const LinearProblem* problem, const float* input, const float* weight, const float* bias,
                    float* output, int count_zero, Counters* counters) {
  return status_of([&] { flopcuda::cpu::linear(*problem, input, weight, bias, output, count_zero != 0, *counters); });
}

}  // extern "C"
