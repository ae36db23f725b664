// Functions that a CUDA device library provides and the machine executes itself: vprintf, __assertfail, malloc, free.
#pragma once

#include <string>

#include "decode/program.h"

namespace flopcuda::ptxvm {

class Warp;

void native_printf(Warp& warp, const Instruction& instruction);
void native_malloc(Warp& warp, const Instruction& instruction);
void native_free(Warp& warp, const Instruction& instruction);
std::string assertion_message(Warp& warp, const Instruction& instruction, int lane);

}  // namespace flopcuda::ptxvm
