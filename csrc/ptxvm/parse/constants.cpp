// Constant expressions, by precedence climbing.
#include "parse/constants.h"

#include <cstring>

namespace flopcuda::ptxvm {
namespace {

using Kind = Constant::Kind;

constexpr int kMaxNesting = 64;

struct Operator {
  std::string_view name;
  int precedence;  // the higher binds the closer
};

// Those of two characters first: "<" is no operator in front of another "<".
constexpr Operator kOperators[] = {
    {"||", 1}, {"&&", 2}, {"==", 6}, {"!=", 6}, {"<=", 7}, {">=", 7}, {"<<", 8}, {">>", 8}, {"|", 3},
    {"^", 4},  {"&", 5},  {"<", 7},  {">", 7},  {"+", 9},  {"-", 9},  {"*", 10}, {"/", 10}, {"%", 10},
};

template <class To, class From>
To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

double as_double(const Constant& constant) { return bit_cast<double>(as_float64(constant)); }

class Expression {
 public:
  explicit Expression(Cursor& cursor) : cursor_(cursor) {}

  Constant run() { return conditional(); }

 private:
  [[noreturn]] void fail(const char* message) const { cursor_.fail(message); }

  Constant conditional() {
    if (++depth_ > kMaxNesting) fail("constant expression nested too deeply");
    Constant value = binary(1);
    if (cursor_.accept('?')) {
      const bool holds = integral(value).bits != 0;
      const Constant yes = conditional();
      cursor_.expect(':');
      const Constant no = conditional();
      value = holds ? yes : no;
    }
    --depth_;
    return value;
  }

  Constant binary(int lowest) {
    Constant left = unary();
    for (const Operator* op = ahead(); op && op->precedence >= lowest; op = ahead()) {
      for (size_t i = 0; i < op->name.size(); ++i) cursor_.take();
      left = apply(op->name, left, binary(op->precedence + 1));
    }
    return left;
  }

  const Operator* ahead() const {
    for (const Operator& op : kOperators) {
      if (cursor_.at_symbols(op.name)) return &op;
    }
    return nullptr;
  }

  Constant unary() {
    if (++depth_ > kMaxNesting) fail("constant expression nested too deeply");
    const Constant value = unary_operand();
    --depth_;
    return value;
  }

  Constant unary_operand() {
    if (cursor_.accept('+')) return arithmetic(unary());
    if (cursor_.accept('-')) {
      Constant value = arithmetic(unary());
      value.bits = value.is_integer() ? 0 - value.bits : value.bits ^ uint64_t{1} << 63;
      return value;
    }
    if (cursor_.accept('~')) {
      Constant value = integral(unary());
      value.bits = ~value.bits;
      return value;
    }
    if (cursor_.accept('!')) return {Kind::kSigned, integral(unary()).bits == 0};
    if (cursor_.accept('(')) return in_parentheses();
    return literal();
  }

  Constant in_parentheses() {
    for (const auto& [name, kind] : {std::pair{"s64", Kind::kSigned}, std::pair{"u64", Kind::kUnsigned}}) {
      if (!cursor_.accept_suffix(name)) continue;
      cursor_.expect(')');
      return {kind, integral(unary()).bits};
    }
    const Constant value = conditional();
    cursor_.expect(')');
    return value;
  }

  Constant literal() {
    const Token& token = cursor_.peek();
    switch (token.kind) {
      case Token::Kind::kInteger: {
        const bool is_unsigned = token.text.back() == 'U' || token.bits >> 63;
        return {is_unsigned ? Kind::kUnsigned : Kind::kSigned, cursor_.take().bits};
      }
      case Token::Kind::kFloat32:
        return {Kind::kFloat32, cursor_.take().bits};
      case Token::Kind::kFloat64:
        return {Kind::kFloat64, cursor_.take().bits};
      default:
        cursor_.fail_expected("a constant");
    }
  }

  Constant arithmetic(const Constant& value) const {
    if (value.kind == Kind::kFloat32) fail("no operator applies to a constant written in bits (0f)");
    return value;
  }

  Constant integral(const Constant& value) const {
    if (!value.is_integer()) fail("this operator applies to integers only");
    return value;
  }

  Constant apply(std::string_view name, const Constant& left, const Constant& right) const {
    arithmetic(left);
    arithmetic(right);
    if (left.is_integer() != right.is_integer()) fail("a constant expression mixes integers and floating point");
    return left.is_integer() ? apply_to_integers(name, left, right) : apply_to_floats(name, left, right);
  }

  Constant apply_to_floats(std::string_view name, const Constant& left, const Constant& right) const {
    const double a = as_double(left), b = as_double(right);
    if (name == "+") return {Kind::kFloat64, bit_cast<uint64_t>(a + b)};
    if (name == "-") return {Kind::kFloat64, bit_cast<uint64_t>(a - b)};
    if (name == "*") return {Kind::kFloat64, bit_cast<uint64_t>(a * b)};
    if (name == "/") return {Kind::kFloat64, bit_cast<uint64_t>(a / b)};
    fail("this operator applies to integers only");
  }

  // Signed only if both sides are; a shift has the type of its left side.
  Constant apply_to_integers(std::string_view name, const Constant& left, const Constant& right) const {
    const uint64_t a = left.bits, b = right.bits;
    const bool both_signed = left.kind == Kind::kSigned && right.kind == Kind::kSigned;
    const Kind kind = both_signed ? Kind::kSigned : Kind::kUnsigned;
    const bool less = both_signed ? static_cast<int64_t>(a) < static_cast<int64_t>(b) : a < b;
    if (name == "+") return {kind, a + b};
    if (name == "-") return {kind, a - b};
    if (name == "*") return {kind, a * b};
    if (name == "/" || name == "%") return {kind, divide(a, b, both_signed, name == "%")};
    if (name == "&") return {kind, a & b};
    if (name == "|") return {kind, a | b};
    if (name == "^") return {kind, a ^ b};
    if (name == "<<") return {left.kind, b > 63 ? 0 : a << b};
    if (name == ">>") return {left.kind, shift_right(a, b, left.kind == Kind::kSigned)};
    if (name == "&&") return {Kind::kSigned, a && b};
    if (name == "||") return {Kind::kSigned, a || b};
    if (name == "==") return {Kind::kSigned, a == b};
    if (name == "!=") return {Kind::kSigned, a != b};
    if (name == "<") return {Kind::kSigned, less};
    if (name == ">=") return {Kind::kSigned, !less};
    if (name == "<=") return {Kind::kSigned, less || a == b};
    return {Kind::kSigned, !less && a != b};
  }

  uint64_t divide(uint64_t a, uint64_t b, bool is_signed, bool remainder) const {
    if (b == 0) fail("a constant expression divides by zero");
    if (!is_signed) return remainder ? a % b : a / b;
    if (b == UINT64_MAX) return remainder ? 0 : 0 - a;  // by -1, where the smallest integer has no opposite
    const int64_t dividend = static_cast<int64_t>(a), divisor = static_cast<int64_t>(b);
    return static_cast<uint64_t>(remainder ? dividend % divisor : dividend / divisor);
  }

  static uint64_t shift_right(uint64_t a, uint64_t by, bool is_signed) {
    if (!is_signed) return by > 63 ? 0 : a >> by;
    return static_cast<uint64_t>(static_cast<int64_t>(a) >> (by > 63 ? 63 : by));
  }

  Cursor& cursor_;
  int depth_ = 0;
};

}  // namespace

bool begins_constant(const Token& token) {
  const bool is_operator = token.is('-') || token.is('+') || token.is('~') || token.is('(') || token.is('!');
  return is_operator || token.kind == Token::Kind::kInteger || token.kind == Token::Kind::kFloat32 ||
         token.kind == Token::Kind::kFloat64;
}

Constant constant_expression(Cursor& cursor) { return Expression(cursor).run(); }

int64_t integer_expression(Cursor& cursor) {
  const int line = cursor.peek().line;
  const Constant value = constant_expression(cursor);
  if (!value.is_integer()) cursor.fail("expected an integer constant", line);
  return static_cast<int64_t>(value.bits);
}

uint32_t as_float32(const Constant& constant) {
  if (constant.kind == Kind::kFloat32) return static_cast<uint32_t>(constant.bits);
  return bit_cast<uint32_t>(static_cast<float>(bit_cast<double>(constant.bits)));
}

uint64_t as_float64(const Constant& constant) {
  if (constant.kind == Kind::kFloat64) return constant.bits;
  return bit_cast<uint64_t>(static_cast<double>(bit_cast<float>(static_cast<uint32_t>(constant.bits))));
}

}  // namespace flopcuda::ptxvm
