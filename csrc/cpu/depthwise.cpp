// Copies one input plane at a time into a frame of zeros and walks the tiles of the output planes.
#include "depthwise.h"

#include <omp.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "buffer.h"
#include "copy.h"
#include "micro_kernel.h"
#include "tally.h"
#include "taps.h"

namespace flopcuda::cpu {
namespace {

// The padded input of a plane. Its columns are sorted by their remainder modulo the horizontal stride, the phase, so
// that the taps of neighbouring outputs are neighbours.
struct Frame {
  // In each row, the elements of a phase: every stride-th of the image's row from `source` on, as many as `target` has.
  struct Phase {
    int64_t source;
    Range target;
  };

  Frame(const ConvProblem& problem, int64_t lanes)
      : rows((problem.height.out_size - 1) * problem.height.stride + problem.height.kernel_size),
        phase_size(ceil_div(problem.width.out_size, lanes) * lanes +
                   (problem.width.kernel_size - 1) * problem.width.dilation / problem.width.stride),
        row_size(problem.width.stride * phase_size),
        rows_inside(intersect({problem.height.pad, problem.height.pad + problem.height.in_size}, {0, rows})) {
    for (int64_t phase = 0; phase < problem.width.stride; ++phase) {
      // Element i lies where the only tap of this axis' output i does.
      const Axis axis{problem.width.in_size, phase_size, 1, problem.width.stride, problem.width.pad - phase, 1};
      const Range inside = outputs_inside(axis, 0);
      const int64_t first = phase * phase_size;
      phases.push_back({tap_position(axis, inside.begin, 0), {first + inside.begin, first + inside.end}});
    }
  }

  int64_t rows, phase_size, row_size;
  Range rows_inside;  // those that are rows of the image
  std::vector<Phase> phases;
};

template <class Scalar>
class Depthwise {
 public:
  Depthwise(const ConvProblem& problem, const Operands<Scalar>& operands, bool count_zero)
      : problem_(problem),
        operands_(operands),
        family_(selected_tiles<Scalar>().plane),
        functions_(family_.functions[problem.height.kernel_size / 2 - 1][problem.height.stride - 1][count_zero]),
        multiplier_(problem.out_channels / problem.in_channels),
        frame_(problem, family_.lanes),
        taps_(lay_out_taps()),
        inside_(count_inside()) {}

  int64_t frame_size() const { return frame_.rows * frame_.row_size; }

  // The plane of one output channel of one image. `frame` is zero where no input element is ever copied to.
  void run(int64_t plane, Scalar* frame, Counters& counters) const;

 private:
  std::vector<PlaneTap> lay_out_taps() const;
  std::vector<int64_t> count_inside() const;
  void fill(const Scalar* input, Scalar* frame) const;

  ConvProblem problem_;
  const Operands<Scalar>& operands_;
  const PlaneFamily<Scalar>& family_;
  const typename PlaneFamily<Scalar>::Function (&functions_)[2];  // of one row, of kPlaneRows
  int64_t multiplier_;                                            // output channels of each input channel
  Frame frame_;
  std::vector<PlaneTap> taps_;   // [vector of a row][column of taps]
  std::vector<int64_t> inside_;  // of each output row's taps in a column, those in rows of the image
};

template <class Scalar>
std::vector<PlaneTap> Depthwise<Scalar>::lay_out_taps() const {
  const Axis& axis = problem_.width;
  const std::vector<Range> columns_inside = outputs_inside(axis);
  std::vector<PlaneTap> taps;
  for (int64_t x = 0; x < axis.out_size; x += family_.lanes) {
    const Range columns{x, std::min(x + family_.lanes, axis.out_size)};
    for (int64_t tap = 0; tap < axis.kernel_size; ++tap) {
      const int64_t step = tap * axis.dilation;
      const int64_t first_column = x + step % axis.stride * frame_.phase_size + step / axis.stride;
      taps.push_back({first_column, columns.length() - intersect(columns, columns_inside[tap]).length()});
    }
  }
  return taps;
}

template <class Scalar>
std::vector<int64_t> Depthwise<Scalar>::count_inside() const {
  std::vector<int64_t> counts;
  for (int64_t y = 0; y < problem_.height.out_size; ++y) {
    const int64_t first = y * problem_.height.stride;
    counts.push_back(intersect({first, first + problem_.height.kernel_size}, frame_.rows_inside).length());
  }
  return counts;
}

template <class Scalar>
void Depthwise<Scalar>::fill(const Scalar* input, Scalar* frame) const {
  const int64_t first_row = frame_.rows_inside.begin;
  for (const Frame::Phase& phase : frame_.phases) {
    const Scalar* source = input + (first_row - problem_.height.pad) * problem_.width.in_size + phase.source;
    Scalar* target = frame + first_row * frame_.row_size + phase.target.begin;
    for (int64_t y = first_row; y < frame_.rows_inside.end; ++y) {
      copy_strided(source, problem_.width.stride, phase.target.length(), target);
      source += problem_.width.in_size, target += frame_.row_size;
    }
  }
}

template <class Scalar>
void Depthwise<Scalar>::run(int64_t plane, Scalar* frame, Counters& counters) const {
  const int64_t channel = plane % problem_.out_channels;
  const int64_t height = problem_.height.out_size, width = problem_.width.out_size;
  fill(operands_.input + plane / multiplier_ * channel_size(problem_), frame);

  PlaneTile<Scalar> tile;
  tile.input_stride = frame_.row_size;
  tile.weight = operands_.weight + channel * kernel_size(problem_);
  tile.kernel_width = problem_.width.kernel_size;
  tile.bias = operands_.bias ? operands_.bias + channel : nullptr;
  tile.taps = taps_.data();
  tile.columns = tile.output_stride = width;
  Scalar* const output = operands_.output + plane * height * width;
  tile.output_end = output + height * width;
  for (int64_t y = 0, rows; y < height; y += rows) {
    rows = height - y < kPlaneRows ? 1 : kPlaneRows;
    tile.inside = std::accumulate(inside_.begin() + y, inside_.begin() + y + rows, int64_t{0});
    tile.input = frame + y * problem_.height.stride * frame_.row_size;
    tile.output = output + y * width;
    functions_[rows == kPlaneRows](tile, counters);
  }
}

// One thread's storage.
template <class Scalar>
struct alignas(kThreadAlignment) PlaneWorkspace {
  explicit PlaneWorkspace(int64_t size) : frame(size) { zero_elements(frame.data(), size); }

  AlignedArray<Scalar> frame;
  Counters counters;
};

}  // namespace

bool is_depthwise(const ConvProblem& problem) {
  const Axis &depth = problem.depth, &height = problem.height;
  const bool is_flat = depth.in_size == 1 && depth.out_size == 1 && depth.kernel_size == 1 && depth.pad == 0;
  const bool fits_tally = kPlaneRows * kernel_size(problem) * problem.width.out_size <= PackedTally::kMax;
  return problem.in_channels == problem.groups && is_flat && fits_tally && height.dilation == 1 &&
         height.kernel_size % 2 == 1 && height.kernel_size >= 3 && height.kernel_size <= kMaxPlaneKernelHeight &&
         height.stride <= kMaxPlaneStride;
}

template <class Scalar>
void depthwise(const ConvProblem& problem, const Operands<Scalar>& operands, bool count_zero, Counters& counters) {
  const Depthwise<Scalar> convolution(problem, operands, count_zero);
  const int64_t planes = problem.batch * problem.out_channels;
  const int threads = static_cast<int>(std::clamp<int64_t>(planes, 1, omp_get_max_threads()));
  std::vector<PlaneWorkspace<Scalar>> workspaces;  // allocated out here, as in multiply()
  workspaces.reserve(threads);
  for (int i = 0; i < threads; ++i) workspaces.emplace_back(convolution.frame_size());

  const int64_t chunk = std::max<int64_t>(1, planes / (16 * threads));
#pragma omp parallel for num_threads(threads) schedule(dynamic, chunk)
  for (int64_t plane = 0; plane < planes; ++plane) {
    PlaneWorkspace<Scalar>& work = workspaces[omp_get_thread_num()];
    convolution.run(plane, work.frame.data(), work.counters);
  }
  for (const PlaneWorkspace<Scalar>& work : workspaces) counters += work.counters;
}

template void depthwise(const ConvProblem&, const Operands<float>&, bool, Counters&);
template void depthwise(const ConvProblem&, const Operands<double>&, bool, Counters&);

}  // namespace flopcuda::cpu
