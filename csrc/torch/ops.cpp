// The counted operators' schemas. With autograd and fake kernels added in flopcuda/ops.py, this folder is the only C++
// that includes torch.
//
// An operator returns its output and the launch's counter record, an int64 tensor of [mul, add, pad, zero, lane] on the
// device that computed it. The record is a second output and not hidden state, so that torch's own machinery (streams,
// graph capture, functionalisation, tracing) carries it like any other tensor.
#include <torch/library.h>

#include "torch/schemas.h"

namespace flopcuda {

TORCH_LIBRARY(flopcuda, library) {
  const auto define = [&library](const std::string& name, const std::string& arguments) {
    library.def((name + arguments + ") -> (Tensor output, Tensor counters)").c_str());
  };
  // flipped: the last tap of every axis is read first.
  for (int axes : {2, 3}) {
    define("conv" + std::to_string(axes) + "d", conv_arguments(axes) + ", bool flipped=False");
  }
  define("linear", LINEAR_ARGUMENTS);
  define("matmul", MATMUL_ARGUMENTS);
}

}  // namespace flopcuda
