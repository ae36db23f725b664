// Copies one input plane at a time into a frame of zeros and walks the tiles of the output planes.
#include "depthwise.h"

#include <omp.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "buffer.h"
#include "copy.h"
#include "micro_kernel.h"
#include "taps.h"

namespace flopcuda::cpu {
namespace {

// The padded input of a plane. Its columns are sorted by their remainder modulo the horizontal stride, the phase, so
// that the taps of neighbouring outputs are neighbours.
struct Frame {
  Frame(const ConvProblem& problem, int64_t lanes)
      : rows((problem.height.out_size - 1) * problem.height.stride + problem.height.kernel_size),
        phase_size(ceil_div(problem.width.out_size, lanes) * lanes +
                   (problem.width.kernel_size - 1) * problem.width.dilation / problem.width.stride),
        row_size(problem.width.stride * phase_size),
        rows_inside(std::make_unique<bool[]>(rows)) {
    for (int64_t y = 0; y < rows; ++y) {
      rows_inside[y] = y >= problem.height.pad && y < problem.height.pad + problem.height.in_size;
    }
    for (int64_t tap = 0; tap < problem.width.kernel_size; ++tap) {
      const int64_t step = tap * problem.width.dilation;
      column_offsets.push_back(step % problem.width.stride * phase_size + step / problem.width.stride);
    }
    for (int64_t phase = 0; phase < problem.width.stride; ++phase) {
      phases.push_back({problem.width.in_size, phase_size, 1, problem.width.stride, problem.width.pad - phase, 1});
    }
  }

  int64_t rows, phase_size, row_size;
  std::unique_ptr<bool[]> rows_inside;
  std::vector<int64_t> column_offsets;  // of the taps
  std::vector<Axis> phases;             // element i of a phase lies where the only tap of this axis' output i does
};

template <class Scalar>
class Depthwise {
 public:
  Depthwise(const ConvProblem& problem, const Operands<Scalar>& operands, bool count_zero)
      : problem_(problem),
        operands_(operands),
        family_(selected_tiles<Scalar>().plane),
        functions_(family_.functions[problem.height.kernel_size / 2 - 1][problem.height.stride - 1][count_zero]),
        frame_(problem, family_.lanes),
        pad_columns_(count_pad_columns()),
        inside_(count_inside()) {}

  int64_t frame_size() const { return frame_.rows * frame_.row_size; }

  // The plane of one output channel of one image. `frame` is zero where no input element is ever copied to.
  void run(int64_t plane, Scalar* frame, Counters& counters) const;

 private:
  std::vector<int32_t> count_pad_columns() const;
  std::vector<int64_t> count_inside() const;
  void fill(const Scalar* input, Scalar* frame) const;

  ConvProblem problem_;
  const Operands<Scalar>& operands_;
  const PlaneFamily<Scalar>& family_;
  const typename PlaneFamily<Scalar>::Function (&functions_)[2];  // of one row, of kPlaneRows
  Frame frame_;
  std::vector<int32_t> pad_columns_;  // [vector of a row][tap], of its valid columns those beside the image
  std::vector<int64_t> inside_;       // of each output row's taps in a column, those in rows of the image
};

template <class Scalar>
std::vector<int32_t> Depthwise<Scalar>::count_pad_columns() const {
  const std::vector<Range> columns_inside = outputs_inside(problem_.width);
  std::vector<int32_t> counts;
  for (int64_t x = 0; x < problem_.width.out_size; x += family_.lanes) {
    const Range columns{x, std::min(x + family_.lanes, problem_.width.out_size)};
    for (const Range& inside : columns_inside) {
      counts.push_back(static_cast<int32_t>(columns.length() - intersect(columns, inside).length()));
    }
  }
  return counts;
}

template <class Scalar>
std::vector<int64_t> Depthwise<Scalar>::count_inside() const {
  std::vector<int64_t> counts;
  for (int64_t y = 0; y < problem_.height.out_size; ++y) {
    const bool* const first = frame_.rows_inside.get() + y * problem_.height.stride;
    counts.push_back(std::count(first, first + problem_.height.kernel_size, true));
  }
  return counts;
}

template <class Scalar>
void Depthwise<Scalar>::fill(const Scalar* input, Scalar* frame) const {
  for (const Axis& phase : frame_.phases) {
    const Range inside = outputs_inside(phase, 0);
    const Scalar* source = input + tap_position(phase, inside.begin, 0);
    Scalar* target = frame + inside.begin;
    for (int64_t y = 0; y < frame_.rows; ++y) {
      if (!frame_.rows_inside[y]) continue;
      copy_strided(source + (y - problem_.height.pad) * problem_.width.in_size, problem_.width.stride, inside.length(),
                   target + y * frame_.row_size);
    }
    frame += frame_.phase_size;
  }
}

template <class Scalar>
void Depthwise<Scalar>::run(int64_t plane, Scalar* frame, Counters& counters) const {
  const int64_t image = plane / problem_.out_channels, channel = plane % problem_.out_channels;
  const int64_t in_channel = channel / (problem_.out_channels / problem_.groups);
  const int64_t height = problem_.height.out_size, width = problem_.width.out_size;
  fill(operands_.input + (image * problem_.in_channels + in_channel) * channel_size(problem_), frame);

  PlaneTile<Scalar> tile;
  tile.input_stride = frame_.row_size;
  tile.column_offsets = frame_.column_offsets.data();
  tile.weight = operands_.weight + channel * kernel_size(problem_);
  tile.kernel_width = problem_.width.kernel_size;
  tile.bias = operands_.bias ? operands_.bias + channel : nullptr;
  tile.pad_columns = pad_columns_.data();
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
  return problem.in_channels == problem.groups && is_flat && height.dilation == 1 && height.kernel_size % 2 == 1 &&
         height.kernel_size >= 3 && height.kernel_size <= kMaxPlaneKernelHeight && height.stride <= kMaxPlaneStride;
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
