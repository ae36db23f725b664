// PTX text -> syntax tree.
#pragma once

#include <string>

#include "parse/syntax.h"

namespace flopcuda::ptxvm {

// Throws PtxError, which names the function, the line and its text, on anything that is not PTX as it is known here.
syntax::Module parse(std::string text);

}  // namespace flopcuda::ptxvm
