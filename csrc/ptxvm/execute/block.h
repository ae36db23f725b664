// A block: its warps, shared and local memory, and barriers.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "execute/warp.h"
#include "execute/worker.h"

namespace flopcuda::ptxvm {

// Barrier 16 is that of barrier.cluster.
inline constexpr uint32_t kClusterBarrier = 16;

struct Barrier {
  bool in_use = false;
  bool whole_block = true;
  bool aligned = false;  // all threads must come, none may have exited
  bool reported = false;
  int64_t expected = 0;  // threads, when not the whole block
  uint32_t instruction = 0;
  std::vector<uint32_t> arrived;  // lanes, by warp
  std::vector<uint32_t> waiting;  // of these, those that wait and do not just arrive
  uint32_t population = 0;
  bool all = true, any = false;
};

class Block {
 public:
  explicit Block(Worker& worker);

  // Executes one block from beginning to end.
  void run(std::array<uint32_t, 3> coordinates);

  Worker& worker;
  Launch& launch;
  std::array<uint32_t, 3> coordinates{};
  SharedShadow shadow;
  char* shared = nullptr;
  int64_t shared_bytes = 0;
  char* specials_of(int warp) { return specials_.get() + static_cast<size_t>(warp) * kSpecialBytes; }

  // Local memory: thread-major within a warp.
  char* local_of(int warp, int lane) {
    return local_.get() + (static_cast<int64_t>(warp) * kLanes + lane) * stack_bytes;
  }
  char* local_valid_of(int warp, int lane) {
    return local_valid_.get() + (static_cast<int64_t>(warp) * kLanes + lane) * stack_bytes;
  }
  int64_t stack_bytes = 0;
  bool track_local = false;

  // A path of the warp arrives with its lanes; whether it waits.
  void arrive(Warp& warp, const Instruction& instruction, uint32_t id, int64_t expected);
  void lanes_exited(Warp& warp);
  Barrier& barrier(uint32_t id) { return barriers_[id]; }

 private:
  static constexpr size_t kSpecialBytes = static_cast<size_t>(Special::kCount) * kLanes * 4;

  void start();
  void fill_specials(int warp);
  bool is_complete(const Barrier& barrier) const;
  void complete(uint32_t id);
  void report_deadlock();
  int64_t quantum();
  bool round(const std::vector<int>& order);

  std::deque<Warp> warps_;
  std::array<Barrier, kClusterBarrier + 1> barriers_;
  AlignedMemory shared_memory_, local_, local_valid_, specials_;
};

}  // namespace flopcuda::ptxvm
