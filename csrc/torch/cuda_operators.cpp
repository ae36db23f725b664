// The counted operators in CUDA; nothing where nvcc was not there.
#ifdef FLOPCUDA_WITH_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "cuda/choice.h"
#include "cuda/launch.h"
#include "torch/cuda_operands.h"
#include "torch/operators.h"

namespace flopcuda {
namespace {

struct Cuda {
  template <class Problem>
  static Operands run(const char*, const Problem& problem, const at::Tensor& input, const at::Tensor& weight,
                      const OptionalTensor& bias, const Options& options) {
    const c10::cuda::CUDAGuard guard(input.device());
    const cuda::DeviceProperties& device = cuda::device_properties();
    const cuda::Choice choice =
        cuda::choose_kernel(problem, device_type(input, options.allow_tf32), options.count_zero, device);
    const Operands operands =
        operands_for(choice, problem, input, options.flips_taps ? flipped_weight(weight) : weight, bias);
    if (operands.output.numel() == 0) return operands;
    const cuda::LaunchPlan plan = cuda::plan(problem, operands.device_pointers(choice.kernel->type), choice);
    cuda::launch(plan, c10::cuda::getCurrentCUDAStream(input.device().index()).stream());
    last_launch() = {plan.kernel, choice.splits, cuda::count_waves(problem, choice, device).efficiency};
    return operands;
  }

  // The kernels take rows that run along the reduction: of the second factor, its transpose.
  static Operands run_matmul(const LinearProblem& problem, const at::Tensor& input, const at::Tensor& weight,
                             const Options& options) {
    return run("matmul", problem, input, weight.transpose(1, 2), std::nullopt, options);
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(flopcuda, CUDA, library) { implement<Cuda>(library); }

}  // namespace flopcuda
#endif
