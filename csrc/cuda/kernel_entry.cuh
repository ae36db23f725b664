// The entry of a kernel: its name, launch bounds and parameters around the device function that computes it.
#pragma once

// bounds: the arguments of __launch_bounds__, in parentheses. The rest is the function; its commas may be a template's.
#define FLOPCUDA_DEFINE_KERNEL(kernel, Params, bounds, ...)                                           \
  extern "C" __global__ void __launch_bounds__ bounds kernel(const __grid_constant__ Params params) { \
    __VA_ARGS__(params);                                                                              \
  }
