// Special registers by name.
#pragma once

#include <optional>
#include <string_view>

#include "decode/program.h"

namespace flopcuda::ptxvm {

std::optional<Special> special_named(std::string_view name);

}  // namespace flopcuda::ptxvm
