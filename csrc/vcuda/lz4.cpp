// See lz4.h.
#include "lz4.h"

#include <stdexcept>

namespace flopcuda::vcuda {
namespace {

class Decompressor {
 public:
  Decompressor(const uint8_t* data, size_t bytes, size_t size) : at_(data), end_(data + bytes), size_(size) {
    out_.reserve(size);
  }

  // Sequences of a token, literals and a match; the last has no match.
  std::string run() {
    while (true) {
      const uint8_t token = byte();
      copy_literals(length(token >> 4));
      if (at_ == end_) break;
      const size_t low = byte();
      const size_t distance = low | size_t{byte()} << 8;
      copy_match(distance, length(token & 15) + kLeastMatch);
    }
    check(out_.size() == size_);
    return std::move(out_);
  }

 private:
  static constexpr size_t kLeastMatch = 4;

  static void check(bool good) {
    if (!good) throw std::runtime_error("PTX is damaged (LZ4)");
  }

  uint8_t byte() {
    check(at_ < end_);
    return *at_++;
  }

  size_t length(size_t nibble) {
    if (nibble < 15) return nibble;
    uint8_t more;
    do nibble += more = byte();
    while (more == 255);
    return nibble;
  }

  void copy_literals(size_t count) {
    check(count <= static_cast<size_t>(end_ - at_) && count <= size_ - out_.size());
    out_.append(reinterpret_cast<const char*>(at_), count);
    at_ += count;
  }

  // May overlap what it writes.
  void copy_match(size_t distance, size_t count) {
    check(distance > 0 && distance <= out_.size() && count <= size_ - out_.size());
    for (size_t from = out_.size() - distance; count > 0; --count) out_ += out_[from++];
  }

  const uint8_t* at_;
  const uint8_t* end_;
  size_t size_;
  std::string out_;
};

}  // namespace

std::string decompress_lz4(const uint8_t* data, size_t bytes, size_t size) {
  return Decompressor(data, bytes, size).run();
}

}  // namespace flopcuda::vcuda
