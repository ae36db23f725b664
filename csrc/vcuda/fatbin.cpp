// See fatbin.h.
#include "fatbin.h"

#include <dlfcn.h>

#include <cstring>
#include <stdexcept>
#include <string_view>

#include "lz4.h"

namespace flopcuda::vcuda {
namespace {

constexpr uint32_t kFatBinaryMagic = 0xba55ed50;
constexpr uint16_t kPtxKind = 1;
constexpr uint64_t kLz4Flag = 0x2000, kZstdFlag = 0x8000;

struct FatBinaryHeader {
  uint32_t magic;
  uint16_t version;
  uint16_t header_bytes;
  uint64_t bytes;  // of what follows the header
};

struct EntryHeader {
  uint16_t kind;
  uint16_t unknown;
  uint32_t header_bytes;
  uint64_t bytes;             // of the payload, with padding
  uint32_t compressed_bytes;  // of the payload itself; 0 if it is not compressed
  uint32_t options_offset;
  uint16_t minor, major;
  uint32_t architecture;
  uint32_t name_offset, name_bytes;
  uint64_t flags;
  uint64_t zero;
  uint64_t uncompressed_bytes;
};
static_assert(sizeof(FatBinaryHeader) == 16 && sizeof(EntryHeader) == 64);

template <class Header>
Header read(const uint8_t* place) {
  Header header;
  std::memcpy(&header, place, sizeof header);
  return header;
}

// No library of ours: the one that is there already, as curl, git and nvcc itself use it, too.
std::string decompress_zstd(const uint8_t* data, size_t bytes, size_t size) {
  using Decompress = size_t (*)(void*, size_t, const void*, size_t);
  static const auto decompress = [] {
    void* library = dlopen("libzstd.so.1", RTLD_NOW | RTLD_LOCAL);
    return library ? reinterpret_cast<Decompress>(dlsym(library, "ZSTD_decompress")) : nullptr;
  }();
  if (!decompress) {
    throw std::runtime_error(
        "PTX is compressed with zstd, and there is no libzstd.so.1 here: install it, or compile with nvcc "
        "--no-compress");
  }
  std::string text(size, '\0');
  if (decompress(text.data(), size, data, bytes) != size) throw std::runtime_error("PTX is damaged (zstd)");
  return text;
}

std::string text_of(const EntryHeader& entry, const uint8_t* payload) {
  const size_t compressed = entry.compressed_bytes ? entry.compressed_bytes : entry.bytes;
  std::string text;
  if (entry.flags & kZstdFlag) {
    text = decompress_zstd(payload, compressed, entry.uncompressed_bytes);
  } else if (entry.flags & kLz4Flag) {
    text = decompress_lz4(payload, compressed, entry.uncompressed_bytes);
  } else {
    text.assign(reinterpret_cast<const char*>(payload), entry.bytes);
  }
  return text.substr(0, text.find('\0'));
}

bool is_better(uint32_t candidate, uint32_t best, uint32_t wanted) {
  if ((candidate <= wanted) != (best <= wanted)) return candidate <= wanted;
  return candidate <= wanted ? candidate > best : candidate < best;
}

}  // namespace

std::optional<std::string> find_ptx(const void* fat_binary, int architecture) {
  const auto* start = static_cast<const uint8_t*>(fat_binary);
  const auto header = read<FatBinaryHeader>(start);
  if (header.magic != kFatBinaryMagic) return std::nullopt;
  const uint8_t* at = start + header.header_bytes;
  const uint8_t* const end = at + header.bytes;
  std::optional<EntryHeader> best;
  const uint8_t* payload = nullptr;
  while (at + sizeof(EntryHeader) <= end) {
    const auto entry = read<EntryHeader>(at);
    if (entry.header_bytes == 0) break;
    const bool fits = entry.kind == kPtxKind;
    if (fits && (!best || is_better(entry.architecture, best->architecture, static_cast<uint32_t>(architecture)))) {
      best = entry;
      payload = at + entry.header_bytes;
    }
    at += entry.header_bytes + entry.bytes;
  }
  if (!best) return std::nullopt;
  return text_of(*best, payload);
}

std::optional<std::string> find_ptx_in_image(const void* image, int architecture) {
  const auto magic = read<uint32_t>(static_cast<const uint8_t*>(image));
  if (magic == kFatBinaryWrapperMagic) {
    return find_ptx(static_cast<const FatBinaryWrapper*>(image)->data, architecture);
  }
  if (magic == kFatBinaryMagic) return find_ptx(image, architecture);
  const std::string_view text(static_cast<const char*>(image));
  if (text.find(".version") == std::string_view::npos) return std::nullopt;
  return std::string(text);
}

}  // namespace flopcuda::vcuda
