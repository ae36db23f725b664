// The interface between the blocked matrix product and the micro-kernels: what a tile is, and the table of functions
// that each instruction set offers. Plain types only, so that the files compiled for one instruction set share no
// inline code with the rest of the program.
#pragma once

#include <cstdint>

#include "../common/counters.h"
#include "half.h"
#include "update.h"

namespace flopcuda::cpu {

// What the accumulators of a tile hold before its first product.
enum class Start {
  kNothing,
  kRowBias,     // bias[row]
  kColumnBias,  // bias[column], readable up to the tile's full width
  kOutput,      // the partial sums of an earlier depth block
};

// Along which side of the product the vectors of a tile lie; its other side is broadcast.
enum class Vectors { kColumns, kRows };

// Register tiles of the product, of some panels of rows and one of columns. Each is `depth` rank-1 updates of rows x
// columns accumulators, which are the product's rows and columns, or the reverse if vectors lie along the rows. The
// number of rows and of column vectors, and the side of the vectors, are those of the function they are passed to.
template <class Scalar>
struct Tiles {
  int64_t count;
  int64_t depth;
  int64_t whole_pairs;          // of pairs of numbers, the updates before those with one number and a zero behind it
  const Scalar* row_values;     // of the product; update k's are behind those of k full panels' rows
  int64_t row_values_step;      // from one tile to the next, as are bias_step and output_step
  const Scalar* column_values;  // of the product; update k's begin at the offset of updates[k]
  int64_t vector_step;          // from one vector of columns to the next
  const Update* updates;
  // Of an update's rows and columns of the product, how many are not 0; read only when zeros are counted.
  const int32_t* nonzero_rows;  // [count][depth]
  const int32_t* nonzero_columns;
  int64_t valid_columns;       // of a tile, those that feed an output element; the others are tile-edge waste
  int64_t products_per_input;  // products that a column of the product, which may be padding, is a factor of
  Start start;
  const Scalar* bias;
  int64_t bias_step;
  Scalar* output;
  int64_t output_step;
  int64_t output_stride;  // elements from one row of the output to the next
};

template <class Scalar>
using TileFunction = void (*)(const Tiles<Scalar>&, Counters&);

constexpr int kMaxTileRows = 14;
constexpr int kMaxTileColumnVectors = 8;
constexpr int kMaxTileColumns = 128;
constexpr int kMaxTileElements = 448;

constexpr int kVectorSides = 2;

// Tile functions for both sides of the vectors, every number of rows up to max_rows and of column vectors up to
// max_column_vectors, so that the tiles at the edges of a matrix waste no rows and less than a vector of columns.
template <class Scalar>
struct TileFamily {
  int lanes;  // elements of a vector, a power of two
  int max_rows;
  int max_column_vectors;
  // [vectors][count_zero][rows - 1][column_vectors - 1]
  TileFunction<Scalar> functions[kVectorSides][2][kMaxTileRows][kMaxTileColumnVectors];

  TileFunction<Scalar> function(Vectors vectors, bool count_zero, int64_t rows, int64_t columns) const {
    const int64_t column_vectors = columns >> __builtin_ctz(lanes);  // a division would take as long as some updates
    return functions[static_cast<int>(vectors)][count_zero][rows - 1][column_vectors - 1];
  }

  constexpr int max_columns() const { return max_column_vectors * lanes; }
};

// Dot products of a few rows and a few columns, each contiguous along the depth. Weight: Scalar or a type that Scalar
// holds exactly.
template <class Scalar, class Weight = Scalar>
struct DotTile {
  int64_t depth;
  const Scalar* rows;
  int64_t row_stride;
  const Weight* columns;
  int64_t column_stride;
  const Scalar* bias;  // one for each column, or null
  Scalar* output;
  int64_t output_stride;  // elements from one row of the output to the next
};

constexpr int kMaxDotRows = 4;
constexpr int kMaxDotColumns = 4;

template <class Scalar, class Weight = Scalar>
struct DotFamily {
  using Function = void (*)(const DotTile<Scalar, Weight>&, Counters&);

  Function functions[2][kMaxDotRows][kMaxDotColumns];  // [count_zero][rows - 1][columns - 1]
};

// A line of dot products: where its row and its columns begin, and how many of its products are with padding.
struct DotLine {
  int64_t row, columns, padding;
};

// Dot products of one row and some columns, each made up of lines.
template <class Scalar>
struct LineTile {
  int64_t depth;  // elements of a line
  int64_t line_count;
  const DotLine* lines;
  const Scalar* row;              // zero behind each line's elements, up to a whole vector
  const Scalar* columns;          // readable there
  const int64_t* column_offsets;  // from the first one to each of the others
  const Scalar* bias;             // one, or null
  Scalar* output;                 // one for each column
};

constexpr int kMaxLineColumns = 9;

template <class Scalar>
struct LineFamily {
  using Function = void (*)(const LineTile<Scalar>&, Counters&);

  int lanes;
  Function functions[2][kMaxLineColumns];  // [count_zero][columns - 1]
};

template <class Scalar>
struct LineFamilies {
  LineFamily<Scalar> wide, narrow;
};

// Where a vector of a plane's rows finds the columns that a column of taps multiplies.
struct PlaneTap {
  int64_t first_column;  // in a row of the padded input
  int64_t padding;       // of the columns that feed an output element, those beside the image
};

// Consecutive rows of an output plane, convolved with a kernel of kernel_width columns, a vector of each row at a time.
// The number of rows, the kernel's height and the vertical stride are those of the function it is passed to.
template <class Scalar>
struct PlaneTile {
  const Scalar* input;   // of the first output row, from its topmost tap on; padded
  int64_t input_stride;  // elements from one row of the padded input to the next
  int64_t inside;        // of the vectors that a column of taps multiplies, those in rows of the image
  const PlaneTap* taps;  // [vector of a row][kernel_width]
  const Scalar* weight;  // [kernel height][kernel_width]
  int64_t kernel_width;
  int64_t columns;     // of the output; those of the last vector beyond them are tile-edge waste
  const Scalar* bias;  // one, or null
  Scalar* output;      // whole vectors are written in the order of the rows, but none beyond output_end
  int64_t output_stride;
  Scalar* output_end;
};

constexpr int kMaxPlaneKernelHeight = 7;
constexpr int kMaxPlaneStride = 2;
constexpr int kPlaneRows = 7;  // divides the heights that images of 224 x 224 shrink to

template <class Scalar>
struct PlaneFamily {
  using Function = void (*)(const PlaneTile<Scalar>&, Counters&);

  int lanes;
  // [kernel height / 2 - 1][stride - 1][count_zero][kPlaneRows rows or one], for the kernel heights 3, 5 and 7
  Function functions[kMaxPlaneKernelHeight / 2][kMaxPlaneStride][2][2];
};

template <class Scalar>
struct TileFamilies {
  TileFamily<Scalar> block;          // many rows: a column vector is used once per row
  TileFamily<Scalar> strip;          // one row, many columns: groups of few output channels
  PlaneFamily<Scalar> plane;         // depthwise convolutions
  PlaneFamily<Scalar> narrow_plane;  // the ends of their rows, by narrower vectors if there are any
};

// What an instruction set offers.
struct MicroKernels {
  TileFamilies<float> float32;
  TileFamilies<double> float64;
};

// Of pairs of bfloat16 (pairs.h), each in the place of a float; they count no zeros.
struct PairTiles {
  TileFamily<float> block, strip;
};

// Likewise, for linear layers of few samples and for triangles, by the type of the weight; and for convolutions of few
// outputs.
struct DotKernels {
  DotFamily<float> float32;
  DotFamily<double> float64;
  DotFamily<float, BFloat16> bfloat16;
  DotFamily<float, Float16> float16;
  LineFamilies<float> float32_lines;
  LineFamilies<double> float64_lines;
};

extern const MicroKernels kPortableMicroKernels;
extern const MicroKernels kAvx2MicroKernels;
extern const MicroKernels kAvx512MicroKernels;

extern const PairTiles kPortablePairTiles;
extern const PairTiles kAvx512PairTiles;  // where the CPU multiplies bfloat16

extern const DotKernels kPortableDotKernels;
extern const DotKernels kAvx2DotKernels;
extern const DotKernels kAvx512DotKernels;

// The tiles of the instruction set that is selected now.
template <class Scalar>
const TileFamilies<Scalar>& selected_tiles();

const PairTiles& selected_pair_tiles();

// Likewise, for Weight = Scalar, or BFloat16 and Float16 of float.
template <class Scalar, class Weight>
const DotFamily<Scalar, Weight>& selected_dots();

template <class Scalar>
const LineFamilies<Scalar>& selected_lines();

}  // namespace flopcuda::cpu
