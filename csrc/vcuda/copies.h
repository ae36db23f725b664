// Makes copies and fills of what the functions of the API are given.
#pragma once

#include "cuda_api.h"
#include "operations.h"

namespace flopcuda::vcuda {

Copy linear_copy(void* to, const void* from, size_t size, cudaMemcpyKind kind);
Copy box_copy(const cudaMemcpy3DParms* parameters);
Copy copy_to_symbol(const void* symbol, const void* from, size_t size, size_t offset, cudaMemcpyKind kind);
Copy copy_from_symbol(void* to, const void* symbol, size_t size, size_t offset, cudaMemcpyKind kind);

}  // namespace flopcuda::vcuda
