// A launch from beginning to end: checks its shape and spreads its blocks over the host's cores.
#include <algorithm>
#include <chrono>
#include <exception>
#include <numeric>
#include <system_error>
#include <thread>

#include "error.h"
#include "execute/block.h"
#include "execute/launch.h"
#include "execute/worker.h"

namespace flopcuda::ptxvm {
namespace {

constexpr int64_t kMaxBlockThreads = 1024;
constexpr int64_t kMaxSharedBytes = 228 * 1024;
constexpr uint64_t kMaxBlocks = uint64_t{1} << 40;
constexpr uint64_t kMaxShuffledBlocks = uint64_t{1} << 26;
constexpr uint64_t kMaxCooperativeBlocks = 1024;
constexpr int kMaxWorkers = 256;
constexpr int64_t kMaxLocalBytes = int64_t{4} << 30;  // of all blocks that run at a time

// Memory that cooperative groups keep the state of the grid's barrier in.
class GridWorkspace {
 public:
  explicit GridWorkspace(Launch& launch) : memory_(launch.memory) {
    if (!launch.options.cooperative) return;
    launch.grid_workspace = address();
    memory_.add({address(), address() + sizeof words_, true, "the grid's workspace"});
  }
  ~GridWorkspace() { memory_.remove(address()); }
  GridWorkspace(const GridWorkspace&) = delete;
  GridWorkspace& operator=(const GridWorkspace&) = delete;

 private:
  uint64_t address() const { return reinterpret_cast<uint64_t>(words_); }
  MemoryMap& memory_;
  alignas(64) uint32_t words_[16] = {};
};

// The blocks that workers take, one by one.
class BlockQueue {
 public:
  explicit BlockQueue(const LaunchOptions& options)
      : extent_(options.grid), count_(uint64_t{options.grid[0]} * options.grid[1] * options.grid[2]) {
    if (!options.shuffle || count_ > kMaxShuffledBlocks) return;
    order_.resize(count_);
    std::iota(order_.begin(), order_.end(), 0u);
    std::mt19937_64 random(options.seed);
    std::shuffle(order_.begin(), order_.end(), random);
  }

  bool take(uint64_t& ticket, std::array<uint32_t, 3>& coordinates) {
    ticket = next_.fetch_add(1, std::memory_order_relaxed);
    if (ticket >= count_) return false;
    const uint64_t block = order_.empty() ? ticket : order_[ticket];
    coordinates = {static_cast<uint32_t>(block % extent_[0]), static_cast<uint32_t>(block / extent_[0] % extent_[1]),
                   static_cast<uint32_t>(block / extent_[0] / extent_[1])};
    return true;
  }

  uint64_t count() const { return count_; }

 private:
  std::array<uint32_t, 3> extent_;
  uint64_t count_;
  std::atomic<uint64_t> next_{0};
  std::vector<uint32_t> order_;
};

void check(const Program& program, const LaunchOptions& options, const Launch& launch) {
  const auto fail = [&](const std::string& message) { throw PtxError(message, program.name); };
  uint64_t blocks = 1;
  for (uint32_t extent : options.grid) {
    if (extent == 0) fail("a grid extent is 0");
    if (extent > kMaxBlocks / blocks) fail("the grid has more than 2^40 blocks");
    blocks *= extent;
  }
  if (options.cooperative && blocks > kMaxCooperativeBlocks) {
    fail("a cooperative grid has more than " + std::to_string(kMaxCooperativeBlocks) + " blocks");
  }
  for (uint32_t extent : options.block) {
    if (extent == 0) fail("a block extent is 0");
    if (extent > kMaxBlockThreads) fail("a block has more than 1024 threads");
  }
  if (launch.threads_per_block() > kMaxBlockThreads) fail("a block has more than 1024 threads");
  if (program.max_threads > 0 && launch.threads_per_block() > program.max_threads) {
    fail("a block has " + std::to_string(launch.threads_per_block()) + " threads, the kernel allows " +
         std::to_string(program.max_threads));
  }
  if (options.dynamic_shared_bytes < 0) fail("the size of dynamic shared memory is negative");
  if (options.dynamic_shared_bytes > kMaxSharedBytes || launch.kernel_shared_bytes() > kMaxSharedBytes) {
    fail("more than 228 KiB of shared memory");
  }
  if (static_cast<int64_t>(launch.parameters.size()) != program.parameter_bytes)
    fail("the parameters have another size");
}

// So many as there is local memory for, whose state is kept beside it; one block's is always there.
int worker_count(const Launch& launch, uint64_t blocks) {
  const LaunchOptions& options = launch.options;
  const int64_t block_bytes = 2 * (launch.threads_per_block() + kLanes - 1) * stack_bytes_of(launch.program);
  const uint64_t most = static_cast<uint64_t>(std::max<int64_t>(1, kMaxLocalBytes / std::max<int64_t>(1, block_bytes)));
  if (options.cooperative) {
    if (blocks > most) throw PtxError("the blocks of the cooperative grid need more than 4 GiB", launch.program.name);
    return static_cast<int>(blocks);
  }
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const int wanted = options.threads > 0 ? std::min(options.threads, kMaxWorkers) : cores;
  return static_cast<int>(std::min({static_cast<uint64_t>(wanted), blocks, most}));
}

}  // namespace

LaunchResult run_launch(const Program& program, const LaunchOptions& options, std::vector<uint8_t> parameters,
                        MemoryMap& memory) {
  Launch launch(program, options, std::move(parameters), memory);
  check(program, options, launch);
  const GridWorkspace workspace(launch);
  const auto begin = std::chrono::steady_clock::now();
  BlockQueue queue(options);
  LaunchResult result;
  result.counters = Counters(program.segment_count, program.info.size());
  std::mutex mutex;
  std::exception_ptr error;
  const auto work = [&] {
    try {
      Worker worker(launch);
      Block block(worker);
      uint64_t ticket = 0;
      std::array<uint32_t, 3> coordinates;
      while (queue.take(ticket, coordinates) && !launch.is_over(ticket)) block.run(ticket, coordinates);
      const std::lock_guard<std::mutex> lock(mutex);
      result.counters += worker.counters;
    } catch (...) {
      launch.stop(0);
      const std::lock_guard<std::mutex> lock(mutex);
      error = std::current_exception();
    }
  };
  const int workers = worker_count(launch, queue.count());
  std::vector<std::thread> threads;
  try {
    for (int i = 1; i < workers; ++i) threads.emplace_back(work);
  } catch (const std::system_error&) {
    // The host allows no more: those there are do all the work, if they do not depend on the others.
    if (options.cooperative) {
      launch.stop(0);
      const std::lock_guard<std::mutex> lock(mutex);
      error = std::make_exception_ptr(PtxError("the host has no threads for all blocks", program.name));
    }
  }
  work();
  for (std::thread& thread : threads) thread.join();
  if (error) std::rethrow_exception(error);
  result.findings = launch.findings.take(options.block);
  result.output = std::move(launch.output);
  result.trapped = launch.stopped_by.load() != UINT64_MAX;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return result;
}

}  // namespace flopcuda::ptxvm
