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
constexpr int kPoison = 0xff;  // of memory that nobody wrote: NaN as a float, -1 as an integer

uint32_t first_lanes(int64_t count) { return count >= kLanes ? kAllLanes : (1u << count) - 1; }

}  // namespace

Block::Block(Worker& worker_)
    : worker(worker_), launch(worker_.launch), findings(worker_.launch.options.checks), shadow(findings) {
  const size_t warps = static_cast<size_t>((launch.threads_per_block() + kLanes - 1) / kLanes);
  warps_.resize(warps);
  for (Barrier& barrier : barriers_) barrier.arrivals.resize(warps);
  shared_bytes = launch.shared_bytes();
  shared_memory_ = aligned_memory(static_cast<size_t>(shared_bytes) + 64);
  shared = shared_memory_.get();
  stack_bytes = worker.stack_bytes();
  stack_pitch = worker.stack_pitch();
  track_local = findings.enabled(Check::kUninitialised);
  const size_t local_bytes = warps * kLanes * static_cast<size_t>(stack_pitch);
  local_ = aligned_memory(local_bytes + 64);
  local_valid_ = aligned_memory((track_local ? local_bytes : 0) + 64);
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
  std::memset(shared, kPoison, static_cast<size_t>(shared_bytes));
  shadow.reset(launch.program, shared_bytes, static_cast<int>(warps_.size()));
  if (launch.program.uses_reserved_shared)
    shadow.initialise(launch.reserved_shared_begin(), Launch::kReservedSharedBytes);
  for (Barrier& barrier : barriers_) barrier.in_use = false;
  stopped_ = false;
  for (size_t w = 0; w < warps_.size(); ++w) {
    fill_specials(static_cast<int>(w));
    warps_[w].start(launch, *this, worker, static_cast<int>(w),
                    first_lanes(threads - static_cast<int64_t>(w) * kLanes));
  }
  for (int64_t thread = 0; thread < threads; ++thread) {
    open_frame(static_cast<int>(thread / kLanes), static_cast<int>(thread % kLanes), 0,
               launch.program.functions[0].local_bytes);
  }
}

void Block::open_frame(int warp, int lane, int64_t base, int64_t bytes) {
  std::memset(local_of(warp, lane) + base, kPoison, static_cast<size_t>(bytes));
  if (track_local) std::memset(local_valid_of(warp, lane) + base, 0, static_cast<size_t>(bytes));
}

void Block::run(uint64_t ticket, std::array<uint32_t, 3> at) {
  ticket_ = ticket;
  coordinates = at;
  start();
  // Whichever host thread runs the block, its warps go in one order.
  if (launch.options.shuffle) worker.random.seed(launch.options.seed * 0x9e3779b97f4a7c15ull + ticket);
  std::vector<int> order(warps_.size());
  std::iota(order.begin(), order.end(), 0);
  do {
    if (launch.options.shuffle) std::shuffle(order.begin(), order.end(), worker.random);
    if (launch.options.cooperative) std::this_thread::yield();
  } while (round(order));
  for (Warp& warp : warps_) {
    worker.counters.warp_instructions += static_cast<uint64_t>(warp.executed());
    warp.stop();
  }
  shadow.finish();
  launch.findings.merge(ticket_, coordinates, findings.take(), stopped_);
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
    const int64_t left = launch.options.instruction_budget - warp.executed();
    Warp::Status status = warp.run(std::min(quantum(), left));
    if (is_over()) return false;
    if (status == Warp::Status::kPreempted && warp.executed() >= launch.options.instruction_budget) {
      report_runaway(warp);
      status = Warp::Status::kStopped;
    }
    if (status != Warp::Status::kStopped) continue;
    warp.halt();
    stopped_ = true;
    launch.stop(ticket_);
  }
  if (!progress && unfinished && !stopped_) report_deadlock();
  return progress;
}

void Block::report_runaway(Warp& warp) {
  const Warp::Place place = warp.place();
  warp.report(Check::kRunaway, place.instruction, place.lanes, 0, [&] {
    return "the warp went over its budget of " + std::to_string(launch.options.instruction_budget) + " instructions";
  });
}

void Block::report_deadlock() {
  for (Warp& warp : warps_) {
    for (const Warp::Place& place : warp.places()) {
      warp.report(Check::kDeadlock, place.instruction, place.lanes, 0,
                  [] { return "waits for threads of its block that never come"; });
    }
  }
}

// ---- barriers ----

void Block::arrive(Warp& warp, const Instruction& instruction, uint32_t id, int64_t expected) {
  Barrier& barrier = barriers_[id];
  const bool counted = expected != 0;
  if (!counted) expected = all_threads();
  if (!barrier.in_use) {
    barrier.in_use = true;
    barrier.counted = counted;
    barrier.expected = expected;
    std::fill(barrier.arrivals.begin(), barrier.arrivals.end(), Barrier::Arrival{});
    barrier.knowledge.fill(0);
    barrier.population = 0;
    barrier.all = true;
    barrier.any = false;
  }
  barrier.counted |= counted;
  barrier.expected = std::min(barrier.expected, expected);
  Barrier::Arrival& arrival = barrier.arrivals[static_cast<size_t>(warp.index)];
  arrival.lanes |= warp.mask;
  if (instruction.u[0] != 1) arrival.waiting |= warp.mask;
  arrival.expected = expected;
  arrival.instruction = instruction.index;
  arrival.aligned = instruction.op == Op::kBarrier && instruction.u[1];
  if (arrival.aligned) arrival.absent |= warp.live & ~warp.mask;
  if (instruction.u[0] >= 2) {
    const uint32_t set = warp.mask & (warp.predicate(instruction.c) ^ (instruction.u[2] ? kAllLanes : 0));
    barrier.population += static_cast<uint32_t>(__builtin_popcount(set));
    barrier.all &= set == warp.mask;
    barrier.any |= set != 0;
  }
  shadow.arrive(warp.index, barrier.knowledge);
  if (is_complete(barrier)) complete(id);
}

// Barriers count whole warps, each when its last lane has come or exited. One without a thread count does not wait for
// threads that have exited.
bool Block::is_complete(const Barrier& barrier) const {
  if (!barrier.in_use) return false;
  int64_t threads = 0;
  bool everyone = true;
  for (size_t w = 0; w < warps_.size(); ++w) {
    const uint32_t arrived = barrier.arrivals[w].lanes;
    const bool complete = (warps_[w].live & ~arrived) == 0;
    everyone &= complete;
    if (arrived && complete) threads += kLanes;
  }
  return barrier.counted ? threads >= barrier.expected : everyone;
}

void Block::complete(uint32_t id) {
  Barrier& barrier = barriers_[id];
  barrier.in_use = false;
  ++worker.counters.barriers;
  order_memory(barrier);
  report_disagreement(barrier);
  if (!barrier.counted) report_exited(barrier);
  for (Warp& warp : warps_) warp.release(id);
}

void Block::order_memory(const Barrier& barrier) {
  const bool everyone_waits = std::all_of(barrier.arrivals.begin(), barrier.arrivals.end(),
                                          [](const auto& arrival) { return arrival.lanes == arrival.waiting; });
  if (everyone_waits && barrier.expected == all_threads()) return shadow.block_barrier();
  for (const Warp& warp : warps_) {
    if (barrier.arrivals[static_cast<size_t>(warp.index)].waiting) shadow.learn(warp.index, barrier.knowledge);
  }
}

void Block::report_disagreement(const Barrier& barrier) {
  const auto differs = [&](const Barrier::Arrival& arrival) {
    return arrival.lanes && arrival.expected != barrier.expected;
  };
  if (std::none_of(barrier.arrivals.begin(), barrier.arrivals.end(), differs)) return;
  for (Warp& warp : warps_) {
    const Barrier::Arrival& arrival = barrier.arrivals[static_cast<size_t>(warp.index)];
    warp.report(Check::kBarrier, arrival.instruction, arrival.lanes, 0, [&] {
      return "gives a thread count of " + std::to_string(arrival.expected) + " at a barrier where others give another";
    });
  }
}

// At an aligned barrier of the whole block all of its threads have to be.
void Block::report_exited(const Barrier& barrier) {
  const Barrier::Arrival* first = nullptr;
  for (const Barrier::Arrival& arrival : barrier.arrivals) {
    if (arrival.aligned && (!first || arrival.instruction < first->instruction)) first = &arrival;
  }
  if (!first) return;
  for (Warp& warp : warps_) {
    const Barrier::Arrival& arrival = barrier.arrivals[static_cast<size_t>(warp.index)];
    const uint32_t born = first_lanes(launch.threads_per_block() - int64_t{warp.index} * kLanes);
    warp.report(Check::kBarrier, first->instruction, born & ~(arrival.lanes | arrival.absent), 0,
                [] { return "exited without coming to a barrier of the whole block"; });
  }
}

void Block::lanes_exited() {
  for (uint32_t id = 0; id < barriers_.size(); ++id) {
    if (is_complete(barriers_[id])) complete(id);
  }
}

}  // namespace flopcuda::ptxvm
