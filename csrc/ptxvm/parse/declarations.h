// Variables in text: .align, .attribute, type, name, extents and initial values.
#pragma once

#include <functional>

#include "parse/cursor.h"

namespace flopcuda::ptxvm {

// The space that a declaration's directive names (".shared"); Space::kGeneric for another.
Space declared_space(std::string_view directive);

// A comma-separated list of variables in this space up to its semicolon; the directive of the space is taken already.
void parse_variables(Cursor& cursor, Space space, bool is_extern, const std::function<void(syntax::Variable)>& declare);

// The parameters of a function, in parentheses.
std::vector<syntax::Variable> parse_parameters(Cursor& cursor);

// .attribute(...) of a variable or function, of no consequence here; the directive is taken already.
void skip_attribute(Cursor& cursor);

}  // namespace flopcuda::ptxvm
