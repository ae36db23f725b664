// A host thread that executes blocks.
#include "execute/worker.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

namespace flopcuda::ptxvm {
namespace {

// Room for calls beyond the entry; recursion has no bound that could be computed.
constexpr int64_t kCallStackBytes = 64 * 1024;
constexpr int64_t kMaxStackBytes = 512 * 1024;
constexpr size_t kMaxFrameBytes = size_t{1} << 30;

}  // namespace

int64_t stack_bytes_of(const Program& program) {
  const int64_t own = program.functions[0].local_bytes;
  int64_t bytes = own;
  if (program.functions.size() > 1) {
    for (const Function& function : program.functions) bytes += function.local_bytes + 16;
    bytes = std::max(own, std::min(bytes + kCallStackBytes, kMaxStackBytes));
  }
  return bytes;
}

void AlignedFree::operator()(char* memory) const { std::free(memory); }

AlignedMemory aligned_memory(size_t bytes) {
  char* memory = static_cast<char*>(std::aligned_alloc(64, (bytes + 127) / 64 * 64));
  if (!memory) throw std::bad_alloc();
  return AlignedMemory(memory);
}

Worker::Worker(Launch& launch_)
    : launch(launch_),
      counters(launch_.program.segment_count, launch_.program.info.size()),
      pattern_of(launch_.program.info.size()),
      allocation_of(launch_.program.info.size()),
      scratch_(aligned_memory(512)),
      stack_bytes_(stack_bytes_of(launch_.program)) {
  std::memset(scratch_.get(), 0, 512);
}

Worker::~Worker() = default;

Frame* Worker::new_frame(const Function& function) {
  const size_t bytes = static_cast<size_t>(function.frame_bytes) + 64;
  auto fit =
      std::find_if(free_frames_.rbegin(), free_frames_.rend(), [&](const Frame* f) { return f->capacity >= bytes; });
  Frame* frame;
  if (fit != free_frames_.rend()) {
    frame = *fit;
    free_frames_.erase(std::next(fit).base());
  } else if (frame_bytes_ + bytes > kMaxFrameBytes) {
    return nullptr;
  } else {
    frame_bytes_ += bytes;
    frames_.push_back(std::make_unique<Frame>());
    frame_memory_.push_back(aligned_memory(bytes));
    frame = frames_.back().get();
    frame->registers = frame_memory_.back().get();
    frame->capacity = bytes;
  }
  std::memset(frame->registers, 0, static_cast<size_t>(function.frame_bytes));
  frame->function = &function;
  frame->local_base = 0;
  frame->depth = 0;
  frame->caller = nullptr;
  frame->site = nullptr;
  frame->return_to = kNoSegment;
  return frame;
}

void Worker::free_frame(Frame* frame) { free_frames_.push_back(frame); }

}  // namespace flopcuda::ptxvm
