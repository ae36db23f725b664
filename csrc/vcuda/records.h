// What was launched, what the checks found and which missing functions were called: for the caller to read as JSON.
#pragma once

#include <string>

#include "decode/program.h"
#include "device.h"
#include "execute/launch.h"
#include "module.h"
#include "operations.h"

namespace flopcuda::vcuda {

void record_launch(const KernelLaunch& launch, const Device& device, const LoadedModule& module,
                   const ptxvm::Program& program, const ptxvm::LaunchResult& result);

// One sentence to standard error.
void print_finding(const LoadedModule& module, const ptxvm::Program& program, const ptxvm::Finding& finding);

}  // namespace flopcuda::vcuda
