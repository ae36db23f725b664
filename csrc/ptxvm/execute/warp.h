// A warp: 32 lanes, their registers, and the paths on which they stand.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "decode/program.h"
#include "execute/launch.h"
#include "execute/pattern.h"
#include "observe/shared_shadow.h"

namespace flopcuda::ptxvm {

class Block;
class Worker;
struct Allocation;

// One call: registers of 32 lanes, and where the lanes go when they return.
struct Frame {
  const Function* function = nullptr;
  char* registers = nullptr;
  int64_t local_base = 0;  // of the function's variables in each thread's local memory
  int depth = 0;
  Frame* caller = nullptr;
  uint32_t return_to = kNoSegment;
  const CallSite* site = nullptr;
  int users = 0;  // paths in it and frames called from it
  size_t capacity = 0;
};

// Instructions for which lanes of a warp come together.
constexpr bool is_exchange(Op op) { return (op >= Op::kShfl && op <= Op::kWmmaStore) || op == Op::kWarpBarrier; }

// Lanes that stand at the same place.
struct Path {
  enum class State : uint8_t { kReady, kAtBarrier, kAtExchange };
  uint32_t mask = 0;
  uint32_t segment = 0;
  Frame* frame = nullptr;
  State state = State::kReady;
  uint32_t barrier = 0;
};

// Copies of cp.async that have not landed.
struct PendingCopy {
  uint32_t mask;
  int bytes;
  size_t number;  // in the shadow of shared memory
  uint32_t group[kLanes];
  int64_t to[kLanes];
  uint64_t from[kLanes];
  uint32_t length[kLanes];  // bytes read, the rest is zero
};

class Warp {
 public:
  enum class Status : uint8_t { kFinished, kBlocked, kPreempted, kStopped };

  // ---- what handlers use ----

  char* bases[4];     // by RefBase; the last is a row that nobody reads, for results that are not wanted
  uint32_t mask = 0;  // active lanes
  Launch* launch = nullptr;
  Block* block = nullptr;
  Worker* worker = nullptr;
  Frame* frame = nullptr;
  int index = 0;      // in its block
  uint32_t live = 0;  // lanes that have not exited

  char* at(Ref ref) const { return bases[ref & 3] + (ref & ~3); }
  template <class T>
  T* row(Ref ref) const {
    return static_cast<T*>(__builtin_assume_aligned(at(ref), 64));
  }
  uint32_t& predicate(Ref ref) const { return *reinterpret_cast<uint32_t*>(at(ref)); }

  // ---- what the block uses ----

  void start(Launch& launch, Block& block, Worker& worker, int index, uint32_t lanes);
  // Runs until it ends, waits, or has executed about `quantum` instructions.
  Status run(int64_t quantum);
  // The barrier has let these go.
  void release(uint32_t barrier);
  bool is_finished() const { return live == 0 || halted_; }
  bool has_ready_path() const;
  int64_t executed() const { return executed_; }
  // Where lanes stand, for messages: those that ran last, and all.
  struct Place {
    uint32_t instruction;
    uint32_t lanes;
  };
  Place place() const { return place_of(paths_.back()); }
  std::vector<Place> places() const;
  void stop();
  // It can run no more, but has not exited: others may wait for it.
  void halt();

  std::vector<Path>& paths() { return paths_; }
  std::vector<PendingCopy> copies;
  uint32_t copy_group[kLanes] = {};

  // These lanes, if any, show a defect; describe() gives the message for the lowest.
  void report(Check check, uint32_t instruction, uint32_t lanes, uint64_t address,
              const std::function<std::string()>& describe);
  void exit_lanes(uint32_t lanes);

 private:
  // So many instructions may a path run while another waits that could run too; then the other gets as many. Lanes that
  // spin until a lane of their own warp does something come to an end this way. Who has spun spins again, as lanes do
  // that take a lock in turn: each time the patience is halved, until paths meet.
  static constexpr int64_t kPatience = 20'000;
  static constexpr int64_t kLeastPatience = 500;

  enum class Outcome : uint8_t { kContinue, kLeft, kTrapped };  // kLeft: no lane is left on the current path

  void execute(const Segment& segment);
  Outcome control(const Segment& segment);
  Outcome branch(const Segment& segment, uint32_t taken);
  Outcome branch_indexed(const Segment& segment);
  Outcome exchange(const Segment& segment);
  Outcome barrier(const Segment& segment);
  Outcome cluster_barrier(const Segment& segment);
  bool comes_early();
  void check_aligned(const Instruction& instruction);
  Outcome call(const Segment& segment, const CallSite& site, const Function& callee);
  Outcome call_indirect(const Segment& segment);
  Outcome leave_function();
  Outcome exit_path();
  Outcome trap(const Segment& segment);
  static bool waits_at_warp_barrier(const Path& path);
  uint32_t present_lanes(const Instruction& instruction) const;
  uint32_t complete_lanes(const Instruction& instruction) const;
  uint32_t named_lanes(const Instruction& instruction) const;
  void check_own_mask(const Instruction& instruction);
  void release_warp_barriers(const Instruction& instruction);
  const char* barrier_defect(const Instruction& instruction, uint32_t id, int64_t expected) const;
  void park(Path::State state, uint32_t barrier);
  void split_off(uint32_t lanes, uint32_t segment);

  void count(const Instruction& instruction, uint32_t lanes);
  void enter(const Path& path);
  Path current() const { return {mask, segment_, frame, Path::State::kReady, 0}; }
  bool select();
  bool resolve_exchanges();
  void reschedule();
  void join();
  void change_over(size_t which);
  void take_path(size_t which);
  static bool before(const Path& x, const Path& y);

  Frame* new_frame(const Function& function);
  void release_frame(Frame* frame);
  static Place place_of(const Path& path);

  uint32_t segment_ = 0;
  std::vector<Path> paths_;  // besides the current one
  int64_t executed_ = 0;     // instructions issued
  int64_t turn_end_ = 0;     // of them, when other warps may run
  int64_t patience_ = 0;
  int64_t overtaken_ = 0;          // instructions run while another ready path waited
  int64_t undisturbed_until_ = 0;  // no switching to an earlier path before this many instructions
  bool preempted_ = false;         // the last path goes on
  bool forced_ = false;            // the exchange at hand runs although lanes are missing
  bool halted_ = false;
};

}  // namespace flopcuda::ptxvm
