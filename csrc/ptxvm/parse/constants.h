// Constant expressions of PTX: integers of 64 bits with C's operators and precedence, or floating-point numbers.
#pragma once

#include "parse/cursor.h"

namespace flopcuda::ptxvm {

struct Constant {
  enum class Kind : uint8_t {
    kSigned,
    kUnsigned,
    kFloat32,  // a single 0f literal: IEEE bits, no operators apply
    kFloat64,
  };
  Kind kind = Kind::kSigned;
  uint64_t bits = 0;

  bool is_integer() const { return kind == Kind::kSigned || kind == Kind::kUnsigned; }
};

// Whether a constant expression may begin with this token.
bool begins_constant(const Token& token);

Constant constant_expression(Cursor& cursor);
// The same where only an integer will do.
int64_t integer_expression(Cursor& cursor);

// IEEE bits of a floating-point constant as .f32 or .f64.
uint32_t as_float32(const Constant& constant);
uint64_t as_float64(const Constant& constant);

}  // namespace flopcuda::ptxvm
