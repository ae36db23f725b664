// See operations.h.
#include "operations.h"

#include <cstring>

#include "error.h"
#include "events.h"
#include "graph.h"
#include "launch.h"
#include "pools.h"

namespace flopcuda::vcuda {
namespace {

size_t span(const Place& place, const Box& box) {
  return (box.depth - 1) * place.plane + (box.height - 1) * place.row + box.width;
}

bool is_empty(const Box& box) { return box.width == 0 || box.height == 0 || box.depth == 0; }

enum class Side : uint8_t { kHost, kDevice, kEither };
constexpr Side kFrom[] = {Side::kHost, Side::kHost, Side::kDevice, Side::kDevice, Side::kEither};  // by kind of copy
constexpr Side kTo[] = {Side::kHost, Side::kDevice, Side::kHost, Side::kDevice, Side::kEither};

void check(const Place& place, const Box& box) {
  require(place.begin != nullptr, cudaErrorInvalidValue);
  require(box.height == 1 || place.row >= box.width, cudaErrorInvalidPitchValue);
}

// Memory of a device must be known, and hold the whole of what is touched. The host can't touch a device's.
bool has_memory(const Place& place, const Box& box, Side side) {
  if (is_empty(box)) return true;
  const std::optional<Block> block = address_space().find(place.begin);
  if (side == Side::kHost) return !block || !block->is_on_device();
  if (!block) return side == Side::kEither;
  return block->holds(reinterpret_cast<uint64_t>(place.begin), span(place, box));
}

void run(const Copy& copy) {
  const Box& box = copy.box;
  for (size_t z = 0; z < box.depth; ++z) {
    for (size_t y = 0; y < box.height; ++y) {
      std::memmove(copy.to.begin + z * copy.to.plane + y * copy.to.row,
                   copy.from.begin + z * copy.from.plane + y * copy.from.row, box.width);
    }
  }
}

void fill_row(char* row, size_t bytes, unsigned value, unsigned element) {
  if (element == 1) {
    std::memset(row, static_cast<int>(value), bytes);
    return;
  }
  for (size_t i = 0; i < bytes; i += element) std::memcpy(row + i, &value, element);
}

void run(const Fill& fill) {
  for (size_t z = 0; z < fill.box.depth; ++z) {
    for (size_t y = 0; y < fill.box.height; ++y) {
      fill_row(fill.to.begin + z * fill.to.plane + y * fill.to.row, fill.box.width, fill.value, fill.element);
    }
  }
}

struct Executor {
  Device& device;

  void operator()(const Nothing&) const {}
  void operator()(const KernelLaunch& launch) const {
    const std::lock_guard<std::mutex> lock(execution_mutex());
    vcuda::run(launch, device);
  }
  void operator()(const Copy& copy) const {
    const std::lock_guard<std::mutex> lock(execution_mutex());
    require(has_memory(copy), cudaErrorInvalidValue);
    run(copy);
  }
  void operator()(const Fill& fill) const {
    const std::lock_guard<std::mutex> lock(execution_mutex());
    require(has_memory(fill), cudaErrorInvalidValue);
    run(fill);
  }
  // The host's own functions run without the lock: they may wait for threads that are at work on the device.
  void operator()(const HostCall& call) const {
    call.function(call.argument);
    const cudaError_t fault = device.fault;  // flopcuda_vcuda_fail()
    require(!fault, fault);
  }
  void operator()(const StreamCallback& callback) const {
    callback.function(callback.stream, cudaSuccess, callback.argument);
  }
  void operator()(const EventRecord& record) const { record.event->record(); }
  void operator()(const EventWait&) const {}  // Whatever was recorded is done.
  void operator()(const Allocate& allocation) const {
    const std::lock_guard<std::mutex> lock(execution_mutex());
    // A graph's allocation that was not freed since the graph's last launch.
    require(!address_space().find(allocation.place()), cudaErrorInvalidValue);
    address_space().add(allocation.block);
  }
  void operator()(const Release& release) const {
    const std::lock_guard<std::mutex> lock(execution_mutex());
    const auto is_device = [](const Block& block) { return block.kind == MemoryKind::kDevice; };
    const bool removed = address_space().remove(release.place, is_device).has_value();
    // What a graph would have allocated, had it been launched, can be freed, too.
    const bool given_up = give_up_graph_memory(release.place);
    require(removed || given_up, cudaErrorInvalidValue);
  }
  void operator()(const ChildGraph& child) const { vcuda::run(*child.graph); }
};

}  // namespace

void check(const Copy& copy) {
  require(copy.kind >= cudaMemcpyHostToHost && copy.kind <= cudaMemcpyDefault, cudaErrorInvalidMemcpyDirection);
  if (is_empty(copy.box)) return;
  check(copy.from, copy.box);
  check(copy.to, copy.box);
}

void check(const Fill& fill) {
  if (!is_empty(fill.box)) check(fill.to, fill.box);
}

bool has_memory(const Operation& operation) {
  if (const auto* copy = std::get_if<Copy>(&operation)) {
    return has_memory(copy->from, copy->box, kFrom[copy->kind]) && has_memory(copy->to, copy->box, kTo[copy->kind]);
  }
  const auto* fill = std::get_if<Fill>(&operation);
  return !fill || has_memory(fill->to, fill->box, Side::kDevice);
}

void execute(const Operation& operation, Device& device) { std::visit(Executor{device}, operation); }

}  // namespace flopcuda::vcuda
