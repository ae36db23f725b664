// What the last operator of a thread launched: for a launch's record, from the code that launched it.
#pragma once

#include <optional>
#include <string>

namespace flopcuda {

struct Launched {
  std::string kernel = "none";            // by name; "none" if there was nothing to compute
  int splits = 1;                         // parts of the reduction
  std::optional<double> wave_efficiency;  // choice.h; none on the CPU
};

// This thread's; who launches writes it.
inline Launched& last_launch() {
  thread_local Launched last;
  return last;
}

}  // namespace flopcuda
