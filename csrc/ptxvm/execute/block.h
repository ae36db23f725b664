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
  // What one warp did at it.
  struct Arrival {
    uint32_t lanes = 0;
    uint32_t waiting = 0;  // of these, those that wait and do not just arrive
    uint32_t absent = 0;   // those that were elsewhere when it was aligned: reported then
    int64_t expected = 0;
    uint32_t instruction = 0;
    bool aligned = false;  // all threads must come, none may have exited
  };

  bool in_use = false;
  bool counted = false;  // a thread count was given; otherwise it is one of those that have not exited
  int64_t expected = 0;  // threads, in whole warps; the least if the warps do not agree
  std::vector<Arrival> arrivals;
  SharedShadow::Knowledge knowledge{};
  uint32_t population = 0;
  bool all = true, any = false;
};

class Block {
 public:
  explicit Block(Worker& worker);

  // Executes one block from beginning to end and hands over what was found.
  void run(uint64_t ticket, std::array<uint32_t, 3> coordinates);
  bool is_over() const { return launch.is_over(ticket_); }

  Worker& worker;
  Launch& launch;
  std::array<uint32_t, 3> coordinates{};
  BlockFindings findings;
  SharedShadow shadow;
  char* shared = nullptr;
  int64_t shared_bytes = 0;
  char* specials_of(int warp) { return specials_.get() + static_cast<size_t>(warp) * kSpecialBytes; }

  // Local memory: thread-major within a warp.
  char* local_of(int warp, int lane) {
    return local_.get() + (static_cast<int64_t>(warp) * kLanes + lane) * stack_pitch;
  }
  char* local_valid_of(int warp, int lane) {
    return local_valid_.get() + (static_cast<int64_t>(warp) * kLanes + lane) * stack_pitch;
  }
  int64_t stack_bytes = 0, stack_pitch = 0;
  bool track_local = false;
  // A function's frame of local memory, which holds nothing yet.
  void open_frame(int warp, int lane, int64_t base, int64_t bytes);

  // A path of the warp arrives with its lanes. 0 threads are expected where no count is given.
  void arrive(Warp& warp, const Instruction& instruction, uint32_t id, int64_t expected);
  void lanes_exited();
  Barrier& barrier(uint32_t id) { return barriers_[id]; }

 private:
  static constexpr size_t kSpecialBytes = static_cast<size_t>(Special::kCount) * kLanes * 4;

  void start();
  void fill_specials(int warp);
  int64_t all_threads() const { return static_cast<int64_t>(warps_.size()) * kLanes; }
  bool is_complete(const Barrier& barrier) const;
  void complete(uint32_t id);
  void order_memory(const Barrier& barrier);
  void report_disagreement(const Barrier& barrier);
  void report_exited(const Barrier& barrier);
  void report_deadlock();
  void report_runaway(Warp& warp);
  int64_t quantum();
  bool round(const std::vector<int>& order);

  uint64_t ticket_ = 0;
  bool stopped_ = false;  // a warp trapped or ran away; the others go on as long as they can
  std::deque<Warp> warps_;
  std::array<Barrier, kClusterBarrier + 1> barriers_;
  AlignedMemory shared_memory_, local_, local_valid_, specials_;
};

}  // namespace flopcuda::ptxvm
