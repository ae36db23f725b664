// Copies one input plane at a time into a frame of zeros and walks the tiles of the output planes.
#include "depthwise.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "buffer.h"
#include "frame.h"
#include "micro_kernel.h"
#include "planes.h"
#include "tally.h"

namespace flopcuda::cpu {
namespace {

// Neighbouring columns of the output planes, computed by the vectors of one family.
template <class Scalar>
struct VectorColumns {
  VectorColumns(const PlaneFamily<Scalar>& family, const Range& columns) : family(&family), columns(columns) {}

  int64_t end() const {  // waste columns included
    return columns.begin + ceil_div(columns.length(), family->lanes) * family->lanes;
  }

  const PlaneFamily<Scalar>* family;
  Range columns;
  std::vector<PlaneTap> taps;  // [vector of a row][column of taps]
};

// All columns of the output planes, from the right. The end of a row that fills no whole vector is one of half the
// width, if it fits.
template <class Scalar>
std::vector<VectorColumns<Scalar>> cover_columns(int64_t width) {
  const PlaneFamily<Scalar>& wide = selected_tiles<Scalar>().plane;
  const PlaneFamily<Scalar>& narrow = selected_tiles<Scalar>().narrow_plane;
  const Range whole{0, width - width % wide.lanes}, rest{whole.end, width};
  if (rest.length() == 0 || rest.length() > narrow.lanes || narrow.lanes == wide.lanes) return {{wide, {0, width}}};
  std::vector<VectorColumns<Scalar>> cover{{narrow, rest}};
  if (whole.length() > 0) cover.emplace_back(wide, whole);
  return cover;
}

template <class Scalar>
class Depthwise {
 public:
  Depthwise(const ConvProblem& problem, const Operands<Scalar>& operands, bool count_zero)
      : problem_(problem),
        operands_(operands),
        count_zero_(count_zero),
        multiplier_(problem.out_channels / problem.in_channels),
        cover_(cover_columns<Scalar>(problem.width.out_size)),
        frame_(problem, cover_.front().end()),
        inside_(count_inside()) {
    for (VectorColumns<Scalar>& part : cover_) lay_out_taps(part);
  }

  int64_t frame_size() const { return frame_.size(); }

  // The plane of one output channel of one image. `frame` is zero where no input element is ever copied to.
  void run(int64_t plane, Scalar* frame, Counters& counters) const;

 private:
  void lay_out_taps(VectorColumns<Scalar>& part) const;
  std::vector<int64_t> count_inside() const;
  // A part of the output plane. `tile` has what all tiles of the plane share.
  void run_columns(const VectorColumns<Scalar>& part, const Scalar* frame, Scalar* output, PlaneTile<Scalar>& tile,
                   Counters& counters) const;

  ConvProblem problem_;
  const Operands<Scalar>& operands_;
  bool count_zero_;
  int64_t multiplier_;  // output channels of each input channel
  std::vector<VectorColumns<Scalar>> cover_;
  Frame frame_;
  std::vector<int64_t> inside_;  // of each output row's taps in a column, those in rows of the image
};

template <class Scalar>
void Depthwise<Scalar>::lay_out_taps(VectorColumns<Scalar>& part) const {
  const Axis& axis = problem_.width;
  const std::vector<Range> columns_inside = outputs_inside(axis);
  for (int64_t x = part.columns.begin; x < part.columns.end; x += part.family->lanes) {
    const Range columns = intersect({x, x + part.family->lanes}, part.columns);
    for (int64_t tap = 0; tap < axis.kernel_size; ++tap) {
      part.taps.push_back(
          {x + frame_.column(tap), columns.length() - intersect(columns, columns_inside[tap]).length()});
    }
  }
}

template <class Scalar>
std::vector<int64_t> Depthwise<Scalar>::count_inside() const {
  std::vector<int64_t> counts;
  for (int64_t y = 0; y < problem_.height.out_size; ++y) {
    const int64_t first = y * problem_.height.stride;
    counts.push_back(intersect({first, first + problem_.height.kernel_size}, frame_.rows_inside()).length());
  }
  return counts;
}

template <class Scalar>
void Depthwise<Scalar>::run_columns(const VectorColumns<Scalar>& part, const Scalar* frame, Scalar* output,
                                    PlaneTile<Scalar>& tile, Counters& counters) const {
  const Axis& axis = problem_.height;
  const auto& functions = part.family->functions[axis.kernel_size / 2 - 1][axis.stride - 1][count_zero_];
  tile.taps = part.taps.data();
  tile.columns = part.columns.length();
  for (int64_t y = 0, rows; y < axis.out_size; y += rows) {
    rows = axis.out_size - y < kPlaneRows ? 1 : kPlaneRows;
    tile.inside = std::accumulate(inside_.begin() + y, inside_.begin() + y + rows, int64_t{0});
    tile.input = frame + y * axis.stride * tile.input_stride;
    tile.output = output + y * tile.output_stride + part.columns.begin;
    functions[rows == kPlaneRows](tile, counters);
  }
}

template <class Scalar>
void Depthwise<Scalar>::run(int64_t plane, Scalar* frame, Counters& counters) const {
  const int64_t channel = plane % problem_.out_channels;
  const int64_t size = output_size(problem_);
  frame_.fill(operands_.input + plane / multiplier_ * channel_size(problem_), frame);

  PlaneTile<Scalar> tile;
  tile.input_stride = frame_.row_size();
  tile.weight = operands_.weight + channel * kernel_size(problem_);
  tile.kernel_width = problem_.width.kernel_size;
  tile.bias = operands_.bias ? operands_.bias + channel : nullptr;
  tile.output_stride = problem_.width.out_size;
  Scalar* const output = operands_.output + plane * size;
  tile.output_end = output + size;
  for (const VectorColumns<Scalar>& part : cover_) run_columns(part, frame, output, tile, counters);
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
  const Axis& height = problem.height;
  const bool fits_tally = kPlaneRows * kernel_size(problem) * problem.width.out_size <= PackedTally::kMax;
  return problem.in_channels == problem.groups && is_flat(problem.depth) && fits_tally && height.dilation == 1 &&
         height.kernel_size % 2 == 1 && height.kernel_size >= 3 && height.kernel_size <= kMaxPlaneKernelHeight &&
         height.stride <= kMaxPlaneStride;
}

template <class Scalar>
void depthwise(const ConvProblem& problem, const Operands<Scalar>& operands, bool count_zero, Counters& counters) {
  const Depthwise<Scalar> convolution(problem, operands, count_zero);
  const auto run = [&](int64_t plane, PlaneWorkspace<Scalar>& work) {
    convolution.run(plane, work.frame.data(), work.counters);
  };
  run_planes<PlaneWorkspace<Scalar>>(problem.batch * problem.out_channels, counters, run, convolution.frame_size());
}

template void depthwise(const ConvProblem&, const Operands<float>&, bool, Counters&);
template void depthwise(const ConvProblem&, const Operands<double>&, bool, Counters&);

}  // namespace flopcuda::cpu
