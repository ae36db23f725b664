// The operators' arguments, as torch's schemas have them, up to the bracket behind; without those that twins lack.
#pragma once

#include <string>

namespace flopcuda {

inline std::string conv_arguments(int axes) {
  const std::string count = std::to_string(axes);
  return "(Tensor input, Tensor weight, Tensor? bias, SymInt[" + count + "] stride, SymInt[" +
         std::to_string(2 * axes) + "] padding, SymInt[" + count +
         "] dilation, SymInt groups, bool count_zero=False, bool allow_tf32=False";
}

constexpr const char* LINEAR_ARGUMENTS =
    "(Tensor input, Tensor weight, Tensor? bias, bool count_zero=False, bool allow_tf32=False";
constexpr const char* MATMUL_ARGUMENTS =
    "(Tensor input, Tensor weight, str? triangle=None, bool count_zero=False, bool allow_tf32=False";

}  // namespace flopcuda
