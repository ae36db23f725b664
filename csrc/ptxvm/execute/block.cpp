// A block: its warps, shared and local memory, and barriers.
#include "execute/block.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <thread>

namespace flopcuda::ptxvm {
namespace {

// Instructions a warp runs before another of its block may; short when the order is shuffled, to show what depends on
// it.
constexpr int64_t kQuantum = 20'000;
constexpr int64_t kShuffledQuantum = 200;
// Blocks that wait for one another, perhaps on one core, must not spin for long.
constexpr int64_t kCooperativeQuantum = 2'000;
constexpr int kSharedPoison = 0xff;  // NaN as a float, -1 as an integer

uint32_t first_lanes(int64_t count) { return count >= kLanes ? kAllLanes : (1u << count) - 1; }

}  // namespace

Block::Block(Worker& worker_) : worker(worker_), launch(worker_.launch) {
  const size_t warps = static_cast<size_t>((launch.threads_per_block() + kLanes - 1) / kLanes);
  warps_.resize(warps);
  for (Barrier& barrier : barriers_) {
    barrier.arrived.resize(warps);
    barrier.waiting.resize(warps);
  }
  shared_bytes = launch.shared_bytes();
  shared_memory_ = aligned_memory(static_cast<size_t>(shared_bytes) + 64);
  shared = shared_memory_.get();
  stack_bytes = worker.stack_bytes();
  track_local = launch.findings.enabled(Check::kUninitialised);
  local_ = aligned_memory(warps * kLanes * static_cast<size_t>(stack_bytes) + 64);
  local_valid_ = aligned_memory((track_local ? warps * kLanes * static_cast<size_t>(stack_bytes) : 0) + 64);
  specials_ = aligned_memory(warps * kSpecialBytes);
}

void Block::fill_specials(int warp) {
  auto* rows = reinterpret_cast<uint32_t (*)[kLanes]>(specials_of(warp));
  const auto set = [&](Special which, uint32_t value) { std::fill_n(rows[static_cast<int>(which)], kLanes, value); };
  const LaunchOptions& options = launch.options;
  for (int axis = 0; axis < 3; ++axis) {
    set(static_cast<Special>(static_cast<int>(Special::kNtidX) + axis), options.block[axis]);
    set(static_cast<Special>(static_cast<int>(Special::kCtaidX) + axis), coordinates[axis]);
    set(static_cast<Special>(static_cast<int>(Special::kNctaidX) + axis), options.grid[axis]);
  }
  set(Special::kWarpid, static_cast<uint32_t>(warp));
  set(Special::kNwarpid, static_cast<uint32_t>(warps_.size()));
  set(Special::kSmid, 0);
  set(Special::kNsmid, 1);
  set(Special::kGridid, static_cast<uint32_t>(kGridId));
  set(Special::kZero, 0);
  set(Special::kOne, 1);
  set(Special::kDynamicSharedBytes, static_cast<uint32_t>(options.dynamic_shared_bytes));
  const uint32_t reserved = static_cast<uint32_t>(launch.reserved_shared_begin());
  set(Special::kReservedSharedBegin, reserved);
  set(Special::kReservedSharedSecond, reserved + Launch::kReservedSharedBytes / 2);
  set(Special::kReservedSharedEnd, reserved + Launch::kReservedSharedBytes);
  set(Special::kReservedSharedBytes, Launch::kReservedSharedBytes);
  set(Special::kTotalSharedBytes, static_cast<uint32_t>(launch.kernel_shared_bytes()));
  set(Special::kGridWorkspaceHigh, static_cast<uint32_t>(launch.grid_workspace >> 32));
  set(Special::kGridWorkspaceLow, static_cast<uint32_t>(launch.grid_workspace));
  for (int lane = 0; lane < kLanes; ++lane) {
    const uint32_t linear = static_cast<uint32_t>(warp * kLanes + lane);
    const uint32_t bit = 1u << lane;
    rows[static_cast<int>(Special::kTidX)][lane] = linear % options.block[0];
    rows[static_cast<int>(Special::kTidY)][lane] = linear / options.block[0] % options.block[1];
    rows[static_cast<int>(Special::kTidZ)][lane] = linear / options.block[0] / options.block[1];
    rows[static_cast<int>(Special::kLaneid)][lane] = static_cast<uint32_t>(lane);
    rows[static_cast<int>(Special::kLanemaskEq)][lane] = bit;
    rows[static_cast<int>(Special::kLanemaskLt)][lane] = bit - 1;
    rows[static_cast<int>(Special::kLanemaskLe)][lane] = bit | (bit - 1);
    rows[static_cast<int>(Special::kLanemaskGe)][lane] = ~(bit - 1);
    rows[static_cast<int>(Special::kLanemaskGt)][lane] = ~(bit | (bit - 1));
  }
}

void Block::start() {
  const int64_t threads = launch.threads_per_block();
  std::memset(shared, kSharedPoison, static_cast<size_t>(shared_bytes));
  shadow.reset(shared_bytes, static_cast<int>(warps_.size()), launch.findings.enabled(Check::kRace),
               launch.findings.enabled(Check::kUninitialised));
  if (launch.program.uses_reserved_shared)
    shadow.initialise(launch.reserved_shared_begin(), Launch::kReservedSharedBytes);
  for (Barrier& barrier : barriers_) {
    barrier.in_use = false;
    barrier.reported = false;
  }
  for (size_t w = 0; w < warps_.size(); ++w) {
    fill_specials(static_cast<int>(w));
    warps_[w].start(launch, *this, worker, static_cast<int>(w),
                    first_lanes(threads - static_cast<int64_t>(w) * kLanes));
  }
  const int64_t entry_local = launch.program.functions[0].local_bytes;
  if (track_local && entry_local > 0) {
    for (int64_t thread = 0; thread < threads; ++thread) {
      std::memset(local_valid_of(static_cast<int>(thread / kLanes), static_cast<int>(thread % kLanes)), 0,
                  static_cast<size_t>(entry_local));
    }
  }
}

void Block::run(std::array<uint32_t, 3> at) {
  coordinates = at;
  start();
  std::vector<int> order(warps_.size());
  std::iota(order.begin(), order.end(), 0);
  while (round(order)) {
    if (launch.options.shuffle) std::shuffle(order.begin(), order.end(), worker.random);
    if (launch.options.cooperative) std::this_thread::yield();
  }
  for (Warp& warp : warps_) {
    worker.counters.warp_instructions += static_cast<uint64_t>(warp.executed());
    warp.stop();
  }
}

int64_t Block::quantum() {
  if (launch.options.shuffle) return 1 + static_cast<int64_t>(worker.random() % kShuffledQuantum);
  return launch.options.cooperative ? kCooperativeQuantum : kQuantum;
}

// Gives every warp a turn; false when the block is done or can go no further.
bool Block::round(const std::vector<int>& order) {
  bool progress = false, unfinished = false;
  for (int w : order) {
    Warp& warp = warps_[static_cast<size_t>(w)];
    if (warp.is_finished()) continue;
    unfinished = true;
    if (!warp.has_ready_path()) continue;
    progress = true;
    if (warp.run(quantum()) == Warp::Status::kStopped) return false;
    if (warp.executed() > launch.options.instruction_budget) {
      warp.report(
          Check::kRunaway, warp.waiting_instruction(), 0, 0,
          "the warp went over its budget of " + std::to_string(launch.options.instruction_budget) + " instructions");
      launch.stop.store(true);
      return false;
    }
  }
  if (!progress && unfinished) {
    report_deadlock();
    return false;
  }
  return unfinished;
}

void Block::report_deadlock() {
  for (Warp& warp : warps_) {
    if (warp.is_finished()) continue;
    const uint32_t lanes = warp.waiting_lanes();
    warp.report(Check::kDeadlock, warp.waiting_instruction(), lanes ? __builtin_ctz(lanes) : 0, 0,
                "waits for threads of its block that never come");
  }
}

// ---- barriers ----

void Block::arrive(Warp& warp, const Instruction& instruction, uint32_t id, int64_t expected) {
  Barrier& barrier = barriers_[id];
  if (!barrier.in_use) {
    barrier.in_use = true;
    barrier.whole_block = expected == 0;
    barrier.expected = expected;
    barrier.instruction = instruction.index;
    barrier.aligned = instruction.op == Op::kBarrier && instruction.u[1];
    std::fill(barrier.arrived.begin(), barrier.arrived.end(), 0u);
    std::fill(barrier.waiting.begin(), barrier.waiting.end(), 0u);
    barrier.population = 0;
    barrier.all = true;
    barrier.any = false;
  } else if (barrier.whole_block != (expected == 0) || barrier.expected != expected) {
    warp.report(Check::kBarrier, instruction.index, __builtin_ctz(warp.mask), id,
                "gives another thread count than others at the same barrier");
  }
  const size_t w = static_cast<size_t>(warp.index);
  barrier.arrived[w] |= warp.mask;
  if (instruction.u[0] != 1) barrier.waiting[w] |= warp.mask;
  if (instruction.u[0] >= 2) {
    const uint32_t set = warp.mask & (warp.predicate(instruction.c) ^ (instruction.u[2] ? kAllLanes : 0));
    barrier.population += static_cast<uint32_t>(__builtin_popcount(set));
    barrier.all &= set == warp.mask;
    barrier.any |= set != 0;
  }
  if (is_complete(barrier)) complete(id);
}

bool Block::is_complete(const Barrier& barrier) const {
  if (!barrier.in_use) return false;
  int64_t threads = 0;
  bool everyone = true, anyone = false;
  for (size_t w = 0; w < warps_.size(); ++w) {
    const uint32_t arrived = barrier.arrived[w];
    everyone &= (warps_[w].live & ~arrived) == 0;
    anyone |= arrived != 0;
    // Barriers count whole warps, each when its last lane has come or exited.
    if (arrived && (warps_[w].live & ~arrived) == 0) threads += kLanes;
  }
  return barrier.whole_block ? everyone && anyone : threads >= barrier.expected;
}

void Block::complete(uint32_t id) {
  Barrier& barrier = barriers_[id];
  barrier.in_use = false;
  ++worker.counters.barriers;
  const int64_t all_warps = static_cast<int64_t>(warps_.size()) * kLanes;
  if (barrier.whole_block || barrier.expected >= all_warps) {
    shadow.block_barrier();
  } else {
    shadow.partial_barrier(barrier.arrived, barrier.waiting);
  }
  if (barrier.whole_block && barrier.aligned && !barrier.reported) {
    const int64_t threads = launch.threads_per_block();
    for (size_t w = 0; w < warps_.size(); ++w) {
      const uint32_t born = first_lanes(threads - static_cast<int64_t>(w) * kLanes);
      const uint32_t gone = born & ~barrier.arrived[w];
      if (!gone) continue;
      barrier.reported = true;
      warps_[w].report(Check::kBarrier, barrier.instruction, __builtin_ctz(gone), 0,
                       "exited without coming to a barrier of the whole block");
      break;
    }
  }
  for (Warp& warp : warps_) warp.release(id);
}

void Block::lanes_exited(Warp&) {
  for (uint32_t id = 0; id < barriers_.size(); ++id) {
    if (is_complete(barriers_[id])) complete(id);
  }
}

}  // namespace flopcuda::ptxvm
