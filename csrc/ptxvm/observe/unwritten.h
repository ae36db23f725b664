// When a read counts as one of memory that nobody wrote.
#pragma once

#include <cstdint>
#include <cstring>

namespace flopcuda::ptxvm {

// Where the first element begins of which no byte is written (`written` has one byte for each), or -1. Compilers copy a
// structure in pieces that take its padding along, so a written byte vouches for its element.
inline int first_unwritten(const void* written, int bytes, int element) {
  const auto* begin = static_cast<const uint8_t*>(written);
  if (!std::memchr(begin, 0, static_cast<size_t>(bytes))) return -1;
  for (int at = 0; at < bytes; at += element) {
    if (!std::memchr(begin + at, 1, static_cast<size_t>(element))) return at;
  }
  return -1;
}

}  // namespace flopcuda::ptxvm
