// Copies the planes of a group into frames of zeros and multiplies the lines of the kernel by those of the frames. What
// depthwise.cpp does for a small kernel, with outputs and taps having changed places: vectors lie along the taps.
#include "few_outputs.h"

#include <vector>

#include "buffer.h"
#include "frame.h"
#include "micro_kernel.h"
#include "partition.h"
#include "planes.h"

namespace flopcuda::cpu {
namespace {

constexpr int64_t kMaxGroupRows = 3, kMaxOutputs = 64;

// The axis of a convolution whose outputs are this one's taps, and the other way round.
Axis swapped(const Axis& axis) {
  return {axis.in_size, axis.kernel_size, axis.out_size, axis.dilation, axis.pad, axis.stride};
}

ConvProblem swapped(ConvProblem problem) {
  problem.height = swapped(problem.height), problem.width = swapped(problem.width);
  return problem;
}

template <class Scalar>
const LineFamily<Scalar>& choose_lines(int64_t width) {
  const LineFamilies<Scalar>& families = selected_lines<Scalar>();
  return width <= families.narrow.lanes ? families.narrow : families.wide;
}

// One thread's storage.
template <class Scalar>
struct alignas(kThreadAlignment) LineWorkspace {
  LineWorkspace(int64_t frames_size, int64_t lines_size) : frames(frames_size), lines(lines_size) {
    zero_elements(frames.data(), frames_size);
    zero_elements(lines.data(), lines_size);
  }

  AlignedArray<Scalar> frames;  // of a group's input planes
  AlignedArray<Scalar> lines;   // of the kernels for these, each with zeros behind it up to a whole vector
  Counters counters;
};

template <class Scalar>
class FewOutputs {
 public:
  FewOutputs(const ConvProblem& problem, const Operands<Scalar>& operands, bool count_zero)
      : problem_(problem),
        operands_(operands),
        count_zero_(count_zero),
        channels_(problem.in_channels / problem.groups),
        family_(choose_lines<Scalar>(problem.width.kernel_size)),
        line_size_(PanelWidth{family_.lanes, family_.lanes}.rounded(problem.width.kernel_size)),
        frame_(swapped(problem), line_size_),
        parts_{output_size(problem), ceil_div(output_size(problem), kMaxLineColumns)} {
    lay_out_columns();
    for (int64_t part = 0; part < parts_.parts; ++part) lay_out_lines(part);
  }

  int64_t frames_size() const { return channels_ * frame_.size(); }
  int64_t lines_size() const { return channels_ * problem_.height.kernel_size * line_size_; }

  // The plane of one output channel of one image.
  void run(int64_t plane, LineWorkspace<Scalar>& work) const;

 private:
  void lay_out_columns();
  void lay_out_lines(int64_t part);
  void copy_lines(const Scalar* weight, Scalar* lines) const;

  ConvProblem problem_;
  const Operands<Scalar>& operands_;
  bool count_zero_;
  int64_t channels_;  // of a group's input
  const LineFamily<Scalar>& family_;
  int64_t line_size_;
  Frame frame_;
  Partition parts_;               // of the outputs of a plane, each computed at a time
  std::vector<int64_t> columns_;  // in a frame, where those of the outputs begin
  std::vector<int64_t> padding_;  // of an output's products with a line in the image
  std::vector<DotLine> lines_;    // [part][channel][line]
};

template <class Scalar>
void FewOutputs<Scalar>::lay_out_columns() {
  const std::vector<Range> taps_inside = outputs_inside(swapped(problem_.width));
  for (int64_t y = 0; y < problem_.height.out_size; ++y) {
    for (int64_t x = 0; x < problem_.width.out_size; ++x) {
      columns_.push_back(y * problem_.height.stride * frame_.row_size() + frame_.column(x));
      padding_.push_back(problem_.width.kernel_size - taps_inside[x].length());
    }
  }
}

template <class Scalar>
void FewOutputs<Scalar>::lay_out_lines(int64_t part) {
  const int64_t height = problem_.height.kernel_size;
  const std::vector<Range> lines_inside = outputs_inside(swapped(problem_.height));
  for (int64_t channel = 0; channel < channels_; ++channel) {
    for (int64_t line = 0; line < height; ++line) {
      int64_t padding = 0;
      for (int64_t i = parts_.begin(part); i < parts_.begin(part) + parts_.length(part); ++i) {
        const bool is_inside = lines_inside[i / problem_.width.out_size].contains(line);
        padding += is_inside ? padding_[i] : problem_.width.kernel_size;
      }
      const int64_t frame_row = line * problem_.height.dilation * frame_.row_size();
      lines_.push_back({(channel * height + line) * line_size_, channel * frame_.size() + frame_row, padding});
    }
  }
}

template <class Scalar>
void FewOutputs<Scalar>::copy_lines(const Scalar* weight, Scalar* lines) const {
  const int64_t taps = kernel_size(problem_), width = problem_.width.kernel_size;
  const int64_t stride = operands_.layout ? operands_.layout->in_channel : taps;
  for (int64_t channel = 0; channel < channels_; ++channel, weight += stride) {
    for (int64_t tap = 0; tap < taps; tap += width, lines += line_size_) copy_elements(weight + tap, width, lines);
  }
}

template <class Scalar>
void FewOutputs<Scalar>::run(int64_t plane, LineWorkspace<Scalar>& work) const {
  const int64_t channel = plane % problem_.out_channels, image = plane / problem_.out_channels;
  const int64_t group = channel / (problem_.out_channels / problem_.groups);
  const Scalar* input = operands_.input + (image * problem_.groups + group) * channels_ * channel_size(problem_);
  for (int64_t i = 0; i < channels_; ++i, input += channel_size(problem_)) {
    frame_.fill(input, work.frames.data() + i * frame_.size());
  }
  const int64_t stride = operands_.layout ? operands_.layout->out_channel : channels_ * kernel_size(problem_);
  copy_lines(operands_.weight + channel * stride, work.lines.data());

  LineTile<Scalar> tile;
  tile.depth = problem_.width.kernel_size;
  tile.line_count = channels_ * problem_.height.kernel_size;
  tile.row = work.lines.data();
  tile.columns = work.frames.data();
  tile.bias = operands_.bias ? operands_.bias + channel : nullptr;
  for (int64_t part = 0; part < parts_.parts; ++part) {
    tile.lines = lines_.data() + part * tile.line_count;
    tile.column_offsets = columns_.data() + parts_.begin(part);
    tile.output = operands_.output + plane * output_size(problem_) + parts_.begin(part);
    family_.functions[count_zero_][parts_.length(part) - 1](tile, work.counters);
  }
}

}  // namespace

bool has_few_outputs(const ConvProblem& problem) {
  const int64_t outputs = output_size(problem);
  return is_flat(problem.depth) && problem.out_channels <= kMaxGroupRows * problem.groups && outputs <= kMaxOutputs &&
         outputs < kernel_size(problem);
}

template <class Scalar>
void few_outputs(const ConvProblem& problem, const Operands<Scalar>& operands, bool count_zero, Counters& counters) {
  const FewOutputs<Scalar> convolution(problem, operands, count_zero);
  const auto run = [&](int64_t plane, LineWorkspace<Scalar>& work) { convolution.run(plane, work); };
  run_planes<LineWorkspace<Scalar>>(problem.batch * problem.out_channels, counters, run, convolution.frames_size(),
                                    convolution.lines_size());
}

template void few_outputs(const ConvProblem&, const Operands<float>&, bool, Counters&);
template void few_outputs(const ConvProblem&, const Operands<double>&, bool, Counters&);

}  // namespace flopcuda::cpu
