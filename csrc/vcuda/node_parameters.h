// The parameters of a graph's nodes: CUDA's structs to operations and back.
#pragma once

#include "cuda_api.h"
#include "device.h"
#include "graph.h"
#include "operations.h"

namespace flopcuda::vcuda {

// Each checks what it is given. A kernel is for this device.
Operation operation_of(const cudaKernelNodeParams& parameters, const Device& device);
Operation operation_of(const cudaMemcpy3DParms& parameters);
Operation operation_of(const cudaMemsetParams& parameters);
Operation operation_of(const cudaHostNodeParams& parameters);
Operation operation_of(cudaMemAllocNodeParams& parameters);  // which get the address
// The struct of any type of node.
Operation operation_of(cudaGraphNodeParams& parameters, const Device& device);

Operation checked(Copy copy);

void read_parameters(Node& node, cudaKernelNodeParams& out);
void read_parameters(Node& node, cudaMemcpy3DParms& out);
void read_parameters(Node& node, cudaMemsetParams& out);
void read_parameters(Node& node, cudaHostNodeParams& out);
void read_parameters(Node& node, cudaMemAllocNodeParams& out);

cudaGraphNodeType type_of(const Node& node);
const char* name_of(cudaGraphNodeType type);

}  // namespace flopcuda::vcuda
