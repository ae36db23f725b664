// Which kernel the last operator of a thread launched: for a launch's record, from the code that launched it.
#pragma once

#include <string>

namespace flopcuda {

// By name; "none" if there was nothing to compute.
const std::string& launched_kernel();

}  // namespace flopcuda
