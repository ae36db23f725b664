// Fat binaries: what nvcc embeds of a compilation for every architecture it was asked for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace flopcuda::vcuda {

inline constexpr uint32_t kFatBinaryWrapperMagic = 0x466243b1;

// What a compiled program registers.
struct FatBinaryWrapper {
  uint32_t magic;
  uint32_t version;
  const void* data;
  void* files;
};

// The PTX that fits a device best: that of the highest architecture up to the device's own; if there is none, of the
// lowest beyond, as the machine executes any. Nothing if there is no PTX, or the data is no fat binary. Throws
// std::runtime_error, one sentence, when the PTX can't be decompressed.
std::optional<std::string> find_ptx(const void* fat_binary, int architecture);

// Of a library that cudaLibraryLoadData was given: a fat binary, its wrapper, or PTX itself.
std::optional<std::string> find_ptx_in_image(const void* image, int architecture);

}  // namespace flopcuda::vcuda
