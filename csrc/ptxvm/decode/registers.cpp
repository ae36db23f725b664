// Liveness by data flow, then a linear scan over the execution order.
#include "decode/registers.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <queue>

namespace flopcuda::ptxvm {
namespace {

class BitSet {
 public:
  explicit BitSet(size_t bits) : words_((bits + 63) / 64) {}
  bool test(size_t i) const { return words_[i / 64] >> (i % 64) & 1; }
  void set(size_t i) { words_[i / 64] |= uint64_t{1} << (i % 64); }
  // this |= (other - minus); whether anything was added
  bool merge(const BitSet& other, const BitSet* minus) {
    uint64_t added = 0;
    for (size_t w = 0; w < words_.size(); ++w) {
      const uint64_t bits = other.words_[w] & ~(minus ? minus->words_[w] : 0);
      added |= bits & ~words_[w];
      words_[w] |= bits;
    }
    return added != 0;
  }
  template <class Visit>
  void for_each(Visit visit) const {
    for (size_t w = 0; w < words_.size(); ++w) {
      for (uint64_t bits = words_[w]; bits; bits &= bits - 1)
        visit(w * 64 + static_cast<size_t>(__builtin_ctzll(bits)));
    }
  }

 private:
  std::vector<uint64_t> words_;
};

struct Range {
  int64_t begin = std::numeric_limits<int64_t>::max();
  int64_t end = -1;
  void extend(int64_t at) {
    begin = std::min(begin, at);
    end = std::max(end, at);
  }
};

struct BlockLiveness {
  explicit BlockLiveness(size_t registers) : used(registers), defined(registers), in(registers), out(registers) {}
  BitSet used, defined, in, out;
};

template <class Visit>
void visit_registers(const Pending& entry, Visit visit) {
  Instruction instruction = entry.instruction;
  if (!instruction.extra) return for_each_register(instruction, nullptr, visit);
  Extra extra = *instruction.extra;
  for_each_register(instruction, &extra, visit);
}

// A guarded instruction, and one under a mask of its own such as set by a fault, leaves the old value in some lanes.
bool overwrites(const Pending& entry) { return entry.instruction.guard == kNoRef && !entry.is_control; }

std::vector<BlockLiveness> liveness(const std::vector<Pending>& pending, size_t registers,
                                    const std::vector<BasicBlock>& blocks, const std::vector<uint32_t>& order) {
  std::vector<BlockLiveness> result(blocks.size(), BlockLiveness(registers));
  for (uint32_t b : order) {
    BlockLiveness& live = result[b];
    for (size_t i = blocks[b].begin; i < blocks[b].end; ++i) {
      visit_registers(pending[i], [&](Ref ref, bool definition) {
        const size_t id = static_cast<size_t>(ref) >> 2;
        if (!definition) {
          if (!live.defined.test(id)) live.used.set(id);
        } else if (overwrites(pending[i])) {
          live.defined.set(id);
        }
      });
    }
    live.in.merge(live.used, nullptr);
  }
  for (bool changed = true; changed;) {
    changed = false;
    for (auto b = order.rbegin(); b != order.rend(); ++b) {
      BlockLiveness& live = result[*b];
      bool grown = false;
      for (uint32_t successor : blocks[*b].successors) grown |= live.out.merge(result[successor].in, nullptr);
      if (grown) changed |= live.in.merge(live.out, &live.defined);
    }
  }
  return result;
}

// The span of the execution order over which a register holds a value somebody may need. Positions are doubled: a
// simple instruction reads its sources at 2 i and writes its result at 2 i + 1, so the result may take a source's slot.
std::vector<Range> live_ranges(const std::vector<Pending>& pending, size_t registers,
                               const std::vector<BasicBlock>& blocks, const std::vector<uint32_t>& order) {
  const std::vector<BlockLiveness> live = liveness(pending, registers, blocks, order);
  std::vector<Range> ranges(registers);
  int64_t position = 0;
  for (uint32_t b : order) {
    live[b].in.for_each([&](size_t id) { ranges[id].extend(position); });
    for (size_t i = blocks[b].begin; i < blocks[b].end; ++i, position += 2) {
      const bool simple = !pending[i].instruction.extra && !pending[i].is_control;
      visit_registers(pending[i], [&](Ref ref, bool definition) {
        ranges[static_cast<size_t>(ref) >> 2].extend(definition && simple ? position + 1 : position);
        if (definition || !simple) ranges[static_cast<size_t>(ref) >> 2].extend(position + 1);
      });
    }
    live[b].out.for_each([&](size_t id) { ranges[id].extend(position); });
  }
  return ranges;
}

int64_t row_bytes(int size) { return size == 0 ? 4 : int64_t{kLanes} * size; }

}  // namespace

RegisterSlots allocate_registers(const std::vector<Pending>& pending, const std::vector<VirtualRegister>& registers,
                                 const std::vector<BasicBlock>& blocks, const std::vector<uint32_t>& order) {
  const std::vector<Range> ranges = live_ranges(pending, registers.size(), blocks, order);
  RegisterSlots result;
  result.slot.assign(registers.size(), 0);
  for (int size : {0, 2, 4, 8}) {
    const int64_t begin = (result.frame_bytes + 63) / 64 * 64;
    result.frame_bytes = begin;
    std::vector<size_t> ids;
    for (size_t id = 0; id < registers.size(); ++id) {
      if (registers[id].size == size && ranges[id].end >= 0) ids.push_back(id);
    }
    std::sort(ids.begin(), ids.end(), [&](size_t x, size_t y) { return ranges[x].begin < ranges[y].begin; });
    using Ending = std::pair<int64_t, Ref>;
    std::priority_queue<Ending, std::vector<Ending>, std::greater<>> occupied;
    std::priority_queue<Ref, std::vector<Ref>, std::greater<>> vacant;
    for (size_t id : ids) {
      while (!occupied.empty() && occupied.top().first < ranges[id].begin) {
        vacant.push(occupied.top().second);
        occupied.pop();
      }
      if (vacant.empty()) {
        vacant.push(static_cast<Ref>(result.frame_bytes));
        result.frame_bytes += row_bytes(size);
      }
      result.slot[id] = vacant.top();
      vacant.pop();
      occupied.push({ranges[id].end, result.slot[id]});
    }
    result.areas.push_back({size, begin, result.frame_bytes});
  }
  result.frame_bytes = (result.frame_bytes + 63) / 64 * 64;
  return result;
}

}  // namespace flopcuda::ptxvm
