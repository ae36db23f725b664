// A host thread that executes blocks one after another, with the memory it uses for them.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "execute/launch.h"
#include "execute/pattern.h"
#include "execute/warp.h"
#include "observe/counters.h"
#include "observe/shared_shadow.h"

namespace flopcuda::ptxvm {

struct AlignedFree {
  void operator()(char* memory) const;
};
using AlignedMemory = std::unique_ptr<char[], AlignedFree>;
AlignedMemory aligned_memory(size_t bytes);

// Local memory of one thread: what the kernel and its calls take.
int64_t stack_bytes_of(const Program& program);

class Worker {
 public:
  explicit Worker(Launch& launch);
  ~Worker();

  Launch& launch;
  Counters counters;
  PatternTable patterns;
  std::vector<const Pattern*> pattern_of;  // the last one, by instruction
  struct Range {
    uint64_t begin = 0, end = 0;
    bool writable = false;
  };
  std::vector<Range> allocation_of;     // the last one hit, by instruction
  uint64_t allocations_version = 0;     // of the memory map, when they were looked up
  int64_t local_relative[kLanes] = {};  // scratch of local accesses
  std::mt19937_64 random;
  char* scratch() { return scratch_.get(); }

  // Local memory of one thread, and how far the next one's is away: kLanes threads of a warp lie side by side.
  int64_t stack_bytes() const { return stack_bytes_; }
  int64_t stack_pitch() const { return (stack_bytes_ + 63) / 64 * 64; }

  // Null when calls hold too much memory already.
  Frame* new_frame(const Function& function);
  void free_frame(Frame* frame);

 private:
  AlignedMemory scratch_;
  int64_t stack_bytes_ = 0;
  size_t frame_bytes_ = 0;
  std::vector<std::unique_ptr<Frame>> frames_;
  std::vector<AlignedMemory> frame_memory_;
  std::vector<Frame*> free_frames_;
};

}  // namespace flopcuda::ptxvm
