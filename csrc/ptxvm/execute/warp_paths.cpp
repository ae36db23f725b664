// The paths on which the lanes of a warp stand: which of them runs next, and where they meet again.
#include <algorithm>
#include <cstring>

#include "execute/warp.h"
#include "execute/worker.h"

namespace flopcuda::ptxvm {
namespace {

// Whether two frames are of one call, which lanes came to at different times.
bool is_same_call(const Frame* x, const Frame* y) {
  if (x->depth != y->depth) return false;
  for (; x != y; x = x->caller, y = y->caller) {
    if (x->function != y->function || x->site != y->site) return false;
  }
  return true;
}

void copy_registers(const Frame& from, Frame& to, uint32_t lanes) {
  for (const RegisterArea& area : from.function->areas) {
    const int64_t stride = area.size == 0 ? int64_t{sizeof(uint32_t)} : int64_t{kLanes} * area.size;
    for (int64_t row = area.begin; row < area.end; row += stride) {
      if (area.size == 0) {
        const uint32_t source = *reinterpret_cast<const uint32_t*>(from.registers + row);
        uint32_t& target = *reinterpret_cast<uint32_t*>(to.registers + row);
        target = (target & ~lanes) | (source & lanes);
        continue;
      }
      for (uint32_t rest = lanes; rest; rest &= rest - 1) {
        const int64_t column = row + int64_t{__builtin_ctz(rest)} * area.size;
        std::memcpy(to.registers + column, from.registers + column, static_cast<size_t>(area.size));
      }
    }
  }
}

}  // namespace

void Warp::enter(const Path& path) {
  mask = path.mask;
  segment_ = path.segment;
  frame = path.frame;
  bases[kFrameBase] = frame->registers;
}

bool Warp::before(const Path& x, const Path& y) {
  if (x.frame->depth != y.frame->depth) return x.frame->depth > y.frame->depth;
  return x.segment < y.segment;
}

bool Warp::has_ready_path() const {
  return std::any_of(paths_.begin(), paths_.end(), [](const Path& p) { return p.state != Path::State::kAtBarrier; });
}

void Warp::take_path(size_t which) {
  const Path path = paths_[which];
  paths_.erase(paths_.begin() + static_cast<std::ptrdiff_t>(which));
  enter(path);
}

// Makes the earliest path that can run the current one; false when all wait for the block.
bool Warp::select() {
  size_t best = paths_.size();
  for (size_t i = 0; i < paths_.size(); ++i) {
    if (paths_[i].state != Path::State::kReady) continue;
    if (best == paths_.size() || before(paths_[i], paths_[best])) best = i;
  }
  if (best == paths_.size()) return resolve_exchanges();
  take_path(best);
  reschedule();
  return true;
}

// Nobody can run but lanes that wait at an exchange: those they wait for have exited, or will not come.
bool Warp::resolve_exchanges() {
  size_t chosen = paths_.size();
  for (size_t i = 0; i < paths_.size(); ++i) {
    if (paths_[i].state != Path::State::kAtExchange) continue;
    enter(paths_[i]);
    const Instruction& instruction = *frame->function->segments[segment_].control;
    if (chosen == paths_.size() || complete_lanes(instruction)) chosen = i;
  }
  mask = 0;
  if (chosen == paths_.size()) return false;
  take_path(chosen);
  forced_ = true;
  return true;
}

// Paths that stand where the current one does become part of it.
void Warp::join() {
  for (size_t i = 0; i < paths_.size();) {
    const Path path = paths_[i];
    if (path.state == Path::State::kAtBarrier || path.segment != segment_ || !is_same_call(path.frame, frame)) {
      ++i;
      continue;
    }
    mask |= path.mask;
    patience_ = kPatience;
    for (Frame *from = path.frame, *to = frame; from != to; from = from->caller, to = to->caller)
      copy_registers(*from, *to, path.mask);
    release_frame(path.frame);
    paths_.erase(paths_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

void Warp::change_over(size_t which) {
  const Path mine = current();
  take_path(which);
  paths_.push_back(mine);
  join();
}

// Goes over to an earlier path if there is any.
void Warp::reschedule() {
  join();
  size_t earliest = paths_.size(), any = paths_.size();
  for (size_t i = 0; i < paths_.size(); ++i) {
    if (paths_[i].state != Path::State::kReady) continue;
    if (any == paths_.size()) any = i;
    if (before(paths_[i], earliest < paths_.size() ? paths_[earliest] : current())) earliest = i;
  }
  if (any == paths_.size()) {
    overtaken_ = executed_;
    return;
  }
  if (executed_ < undisturbed_until_) return;
  if (executed_ - overtaken_ > patience_) {
    overtaken_ = undisturbed_until_ = executed_ + patience_;
    patience_ = std::max(patience_ / 2, kLeastPatience);
    change_over(any);
  } else if (earliest < paths_.size()) {
    change_over(earliest);
  }
}

void Warp::park(Path::State state, uint32_t barrier_) {
  Path path = current();
  path.state = state;
  path.barrier = barrier_;
  paths_.push_back(path);
}

// Splits lanes off the current path; they stay, or go to another segment.
void Warp::split_off(uint32_t lanes, uint32_t segment) {
  ++frame->users;
  paths_.push_back({lanes, segment, frame, Path::State::kReady, 0});
  mask &= ~lanes;
}

}  // namespace flopcuda::ptxvm
