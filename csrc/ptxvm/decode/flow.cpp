// Control flow of one function.
#include "decode/flow.h"

#include <algorithm>

namespace flopcuda::ptxvm {
namespace {

bool leaves(Op op) { return op == Op::kExit || op == Op::kReturn || op == Op::kTrap; }
bool jumps(Op op) { return op == Op::kBranch || op == Op::kBranchIndexed; }

std::vector<bool> find_leaders(const std::vector<Pending>& pending) {
  std::vector<bool> leader(pending.size() + 1, false);
  leader[0] = true;
  for (size_t i = 0; i < pending.size(); ++i) {
    if (pending[i].is_control) leader[i + 1] = true;
    // Lanes that wait for others at an exchange or a barrier wait in front of it.
    if (pending[i].is_control && !leaves(pending[i].instruction.op) && !jumps(pending[i].instruction.op))
      leader[i] = true;
    for (size_t target : pending[i].targets) leader[target] = true;
  }
  return leader;
}

// Orders one strongly connected region after another; each loop by taking its head out and ordering the rest again.
class Orderer {
 public:
  explicit Orderer(const std::vector<BasicBlock>& blocks)
      : blocks_(blocks), region_(blocks.size(), -1), index_(blocks.size()), low_(blocks.size()) {}

  std::vector<uint32_t> run() {
    if (blocks_.empty()) return {};
    std::vector<uint32_t> all(blocks_.size());
    for (uint32_t i = 0; i < all.size(); ++i) all[i] = i;
    order(all, {0}, 0);
    return std::move(result_);
  }

 private:
  static constexpr int kDeepest = 64;

  struct Visit {
    uint32_t block;
    size_t edge;
  };

  // Strongly connected components of `members` that `roots` reach, in topological order (Tarjan, without recursion).
  std::vector<std::vector<uint32_t>> components(const std::vector<uint32_t>& members,
                                                const std::vector<uint32_t>& roots) {
    const int here = ++regions_;
    for (uint32_t block : members) region_[block] = here, index_[block] = 0;
    std::vector<std::vector<uint32_t>> found;
    std::vector<uint32_t> stack;
    std::vector<bool> on_stack_of(blocks_.size(), false);
    int counter = 0;
    for (uint32_t root : roots) {
      if (index_[root] != 0) continue;
      std::vector<Visit> path{{root, 0}};
      while (!path.empty()) {
        Visit& visit = path.back();
        const uint32_t block = visit.block;
        if (visit.edge == 0) {
          index_[block] = low_[block] = ++counter;
          stack.push_back(block);
          on_stack_of[block] = true;
        }
        const std::vector<uint32_t>& out = blocks_[block].successors;
        if (visit.edge < out.size()) {
          const uint32_t to = out[visit.edge++];
          if (region_[to] != here) continue;
          if (index_[to] == 0)
            path.push_back({to, 0});
          else if (on_stack_of[to])
            low_[block] = std::min(low_[block], index_[to]);
          continue;
        }
        if (out.empty()) ++visit.edge;
        if (low_[block] == index_[block]) {
          std::vector<uint32_t> component;
          uint32_t member;
          do {
            member = stack.back();
            stack.pop_back();
            on_stack_of[member] = false;
            component.push_back(member);
          } while (member != block);
          found.push_back(std::move(component));
        }
        path.pop_back();
        if (!path.empty()) low_[path.back().block] = std::min(low_[path.back().block], low_[block]);
      }
    }
    std::reverse(found.begin(), found.end());
    return found;
  }

  void order(const std::vector<uint32_t>& members, const std::vector<uint32_t>& roots, int depth) {
    for (std::vector<uint32_t>& component : components(members, roots)) {
      const uint32_t head = component.back();  // the first one reached
      if (component.size() == 1 || depth >= kDeepest) {
        std::sort(component.begin(), component.end());
        result_.insert(result_.end(), component.begin(), component.end());
        continue;
      }
      result_.push_back(head);
      component.pop_back();
      std::vector<uint32_t> entries;
      for (uint32_t to : blocks_[head].successors) {
        if (std::find(component.begin(), component.end(), to) != component.end()) entries.push_back(to);
      }
      // Irreducible loops have entries besides the head: they are reached from it too, being one component.
      order(component, entries, depth + 1);
    }
  }

  const std::vector<BasicBlock>& blocks_;
  std::vector<int> region_, index_, low_;
  int regions_ = 0;
  std::vector<uint32_t> result_;
};

}  // namespace

std::vector<BasicBlock> find_blocks(const std::vector<Pending>& pending) {
  const std::vector<bool> leader = find_leaders(pending);
  std::vector<uint32_t> block_of(pending.size() + 1, kNoSegment);
  std::vector<BasicBlock> blocks;
  for (size_t i = 0; i < pending.size(); ++i) {
    if (leader[i]) blocks.push_back({i, i, false, {}, kNoSegment, {}});
    blocks.back().end = i + 1;
    block_of[i] = static_cast<uint32_t>(blocks.size()) - 1;
  }
  for (BasicBlock& block : blocks) {
    const Pending& last = pending[block.end - 1];
    block.ends_in_control = last.is_control;
    const bool unconditional = last.is_control && last.instruction.guard == kNoRef &&
                               (leaves(last.instruction.op) || jumps(last.instruction.op));
    if (!unconditional) block.next = block_of[block.end];
    for (size_t target : last.targets) block.targets.push_back(block_of[target]);
    block.successors = block.targets;
    if (block.next != kNoSegment) block.successors.push_back(block.next);
    block.successors.erase(std::remove(block.successors.begin(), block.successors.end(), kNoSegment),
                           block.successors.end());
  }
  return blocks;
}

std::vector<uint32_t> execution_order(const std::vector<BasicBlock>& blocks) { return Orderer(blocks).run(); }

}  // namespace flopcuda::ptxvm
