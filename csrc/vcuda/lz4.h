// Decompresses one LZ4 block, the format of older fat binaries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace flopcuda::vcuda {

// Throws std::runtime_error if the block does not hold exactly `size` bytes.
std::string decompress_lz4(const uint8_t* data, size_t bytes, size_t size);

}  // namespace flopcuda::vcuda
