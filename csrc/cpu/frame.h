// The padded input of a plane, of which every tap of a kernel reads a vector of neighbouring outputs at once: its
// columns are sorted by their remainder modulo the horizontal stride, the phase, so that the taps of neighbouring
// outputs are neighbours.
#pragma once

#include <vector>

#include "../common/problem.h"
#include "copy.h"
#include "taps.h"

namespace flopcuda::cpu {

class Frame {
 public:
  // `columns` of each output row are computed, waste included.
  Frame(const ConvProblem& problem, int64_t columns)
      : height_(problem.height),
        width_(with_phases(problem.width)),
        rows_((height_.out_size - 1) * height_.stride + (height_.kernel_size - 1) * height_.dilation + 1),
        phase_size_(columns + (width_.kernel_size - 1) * width_.dilation / width_.stride),
        rows_inside_(intersect({height_.pad, height_.pad + height_.in_size}, {0, rows_})) {
    for (int64_t phase = 0; phase < width_.stride; ++phase) {
      // Element i lies where the only tap of this axis' output i does.
      const Axis axis{width_.in_size, phase_size_, 1, width_.stride, width_.pad - phase, 1};
      const Range inside = outputs_inside(axis, 0);
      const int64_t first = phase * phase_size_;
      phases_.push_back({tap_position(axis, inside.begin, 0), {first + inside.begin, first + inside.end}});
    }
  }

  int64_t row_size() const { return width_.stride * phase_size_; }
  int64_t size() const { return rows_ * row_size(); }
  const Range& rows_inside() const { return rows_inside_; }  // those that are rows of the image

  // In a row, where the first output's tap of a column of taps lies.
  int64_t column(int64_t tap) const {
    const int64_t step = tap * width_.dilation;
    return step % width_.stride * phase_size_ + step / width_.stride;
  }

  // Copies a plane of the input into a frame that is zero where no input element is ever copied to.
  template <class Scalar>
  void fill(const Scalar* input, Scalar* frame) const {
    for (const Phase& phase : phases_) {
      const Scalar* source = input + (rows_inside_.begin - height_.pad) * width_.in_size + phase.source;
      Scalar* target = frame + rows_inside_.begin * row_size() + phase.target.begin;
      for (int64_t y = rows_inside_.begin; y < rows_inside_.end; ++y) {
        copy_strided(source, width_.stride, phase.target.length(), target);
        source += width_.in_size, target += row_size();
      }
    }
  }

 private:
  // In each row, the elements of a phase: every stride-th of the image's row from `source` on, as many as `target` has.
  struct Phase {
    int64_t source;
    Range target;
  };

  // There are as many phases as the stride: one where a single output has no next one.
  static Axis with_phases(Axis axis) {
    if (axis.out_size == 1) axis.stride = 1;
    return axis;
  }

  Axis height_, width_;
  int64_t rows_, phase_size_;
  Range rows_inside_;
  std::vector<Phase> phases_;
};

}  // namespace flopcuda::cpu
