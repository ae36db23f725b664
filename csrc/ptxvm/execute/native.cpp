// Functions that the machine executes itself.
#include "execute/native.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "execute/block.h"

namespace flopcuda::ptxvm {
namespace {

// The machine's view of one lane's memory for these functions: reads that leave the allocations give nothing.
class LaneMemory {
 public:
  LaneMemory(Warp& warp, int lane) : warp_(warp), lane_(lane) {}

  template <class T>
  T local(int64_t frame_offset) const {
    T value{};
    const int64_t offset = warp_.frame->local_base + frame_offset;
    std::memcpy(&value, warp_.block->local_of(warp_.index, lane_) + offset, sizeof value);
    return value;
  }
  template <class T>
  void set_local(int64_t frame_offset, T value) const {
    const int64_t offset = warp_.frame->local_base + frame_offset;
    std::memcpy(warp_.block->local_of(warp_.index, lane_) + offset, &value, sizeof value);
    if (warp_.block->track_local)
      std::memset(warp_.block->local_valid_of(warp_.index, lane_) + offset, 1, sizeof value);
  }
  template <class T>
  bool read(uint64_t address, T& value) const {
    const char* place = host(address, sizeof value);
    if (place) std::memcpy(&value, place, sizeof value);
    return place != nullptr;
  }
  std::string text(uint64_t address) const {
    std::string result;
    char c = 0;
    while (result.size() < 4096 && read(address++, c) && c) result += c;
    return result;
  }

 private:
  const char* host(uint64_t address, size_t bytes) const {
    const uint64_t offset = address & ~kWindowMask;
    switch (address & kWindowMask) {
      case kLocalWindow:
        return offset + bytes <= static_cast<uint64_t>(warp_.block->stack_bytes) && offset < (1u << 30)
                   ? warp_.block->local_of(warp_.index, lane_) + offset
                   : nullptr;
      case kSharedWindow:
        return offset < (1u << 30) && offset + bytes <= static_cast<uint64_t>(warp_.block->shared_bytes)
                   ? warp_.block->shared + offset
                   : nullptr;
      case 0: {
        const Allocation found = warp_.launch->memory.find(address, address + bytes);
        return found.exists() ? reinterpret_cast<const char*>(address) : nullptr;
      }
      default:
        return nullptr;
    }
  }

  Warp& warp_;
  int lane_;
};

// One conversion of a format, from % to its letter. A width or precision of '*' comes from the arguments.
struct Conversion {
  static constexpr int kFromArguments = -2;
  static constexpr int kWidest = 256;

  std::string flags;
  int width = 0;
  int precision = -1;  // none
  bool is_64_bit = false;
  int halvings = 0;  // of an int, by h or hh
  char letter = 0;   // 0: the format ended before it

  Conversion(const std::string& format, size_t& at) : format_(format), at_(at) {
    for (++at_; is_any_of("-+ #0"); ++at_) flags += format_[at_];
    width = number(0);
    if (is_any_of(".")) {
      ++at_;
      precision = number(0);
    }
    for (; is_any_of("hlLjzt"); ++at_) {
      halvings += format_[at_] == 'h';
      is_64_bit |= format_[at_] != 'h';
    }
    if (at_ < format_.size()) letter = format_[at_++];
  }

  template <class Byte, class Short, class Int>
  Int narrowed(Int value) const {
    return halvings == 0 ? value : halvings == 1 ? static_cast<Short>(value) : static_cast<Byte>(value);
  }

  bool is_of(const char* letters) const { return letter && std::strchr(letters, letter); }

  template <class T>
  std::string print(const char* length, T value) const {
    const std::string own = "%" + flags + "*.*" + length + letter;
    std::string text(static_cast<size_t>(std::max(0, std::snprintf(nullptr, 0, own.c_str(), width, precision, value))),
                     0);
    std::snprintf(text.data(), text.size() + 1, own.c_str(), width, precision, value);
    return text;
  }

 private:
  bool is_any_of(const char* characters) const {
    return at_ < format_.size() && format_[at_] && std::strchr(characters, format_[at_]);
  }
  int number(int absent) {
    if (is_any_of("*")) return ++at_, kFromArguments;
    if (!is_any_of("0123456789")) return absent;
    int value = 0;
    for (; is_any_of("0123456789"); ++at_) value = std::min(kWidest, value * 10 + (format_[at_] - '0'));
    return value;
  }

  const std::string& format_;
  size_t& at_;
};

class Arguments {
 public:
  Arguments(const LaneMemory& memory, uint64_t address) : memory_(memory), address_(address) {}
  template <class T>
  T next() {
    address_ = (address_ + sizeof(T) - 1) / sizeof(T) * sizeof(T);
    T value{};
    memory_.read(address_, value);
    address_ += sizeof(T);
    ++taken_;
    return value;
  }
  int taken() const { return taken_; }

 private:
  const LaneMemory& memory_;
  uint64_t address_;
  int taken_ = 0;
};

// The text, and what printf returns: the number of arguments it took, or -1 without a format.
std::pair<std::string, int> format_lane(const LaneMemory& memory, uint64_t format_address, uint64_t arguments_address) {
  if (format_address == 0) return {"", -1};
  const std::string format = memory.text(format_address);
  Arguments arguments(memory, arguments_address);
  std::string out;
  for (size_t at = 0; at < format.size();) {
    if (format[at] != '%') {
      out += format[at++];
      continue;
    }
    Conversion conversion(format, at);
    const auto from_arguments = [&](int& value) {
      if (value == Conversion::kFromArguments)
        value = std::clamp(arguments.next<int>(), -Conversion::kWidest, Conversion::kWidest);
    };
    from_arguments(conversion.width);
    from_arguments(conversion.precision);
    if (conversion.is_of("%")) {
      out += '%';
    } else if (conversion.is_of("di")) {
      const long long value = conversion.is_64_bit ? arguments.next<int64_t>()
                                                   : conversion.narrowed<int8_t, int16_t>(arguments.next<int32_t>());
      out += conversion.print("ll", value);
    } else if (conversion.is_of("uoxX")) {
      const unsigned long long value = conversion.is_64_bit
                                           ? arguments.next<uint64_t>()
                                           : conversion.narrowed<uint8_t, uint16_t>(arguments.next<uint32_t>());
      out += conversion.print("ll", value);
    } else if (conversion.is_of("c")) {
      out += conversion.print("", arguments.next<int32_t>());
    } else if (conversion.is_of("s")) {
      out += conversion.print("", memory.text(arguments.next<uint64_t>()).c_str());
    } else if (conversion.is_of("p")) {
      out += conversion.print("", reinterpret_cast<void*>(arguments.next<uint64_t>()));
    } else if (conversion.is_of("eEfFgGaA")) {
      out += conversion.print("", arguments.next<double>());
    }
  }
  return {out, arguments.taken()};
}

}  // namespace

void native_printf(Warp& warp, const Instruction& instruction) {
  const std::vector<int64_t>& slots = instruction.extra->values;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.mask >> lane & 1)) continue;
    const LaneMemory memory(warp, lane);
    const auto [text, returned] =
        format_lane(memory, memory.local<uint64_t>(slots[0]), memory.local<uint64_t>(slots[1]));
    {
      const std::lock_guard<std::mutex> lock(warp.launch->output_mutex);
      if (warp.launch->output.size() < (1u << 20)) warp.launch->output += text;
    }
    if (instruction.u[0]) memory.set_local<int32_t>(slots[2], returned);
  }
}

void native_malloc(Warp& warp, const Instruction& instruction) {
  const std::vector<int64_t>& slots = instruction.extra->values;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.mask >> lane & 1)) continue;
    const LaneMemory memory(warp, lane);
    const uint64_t address = warp.launch->memory.allocate(memory.local<uint64_t>(slots[0]));
    if (instruction.u[0]) memory.set_local<uint64_t>(slots[1], address);
  }
}

void native_free(Warp& warp, const Instruction& instruction) {
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.mask >> lane & 1)) continue;
    const uint64_t address = LaneMemory(warp, lane).local<uint64_t>(instruction.extra->values[0]);
    if (address == 0 || warp.launch->memory.release(address)) continue;
    warp.report(Check::kBounds, instruction.index, 1u << lane, address,
                [] { return "free of memory that malloc did not give"; });
  }
}

std::string assertion_message(Warp& warp, const Instruction& instruction, int lane) {
  const LaneMemory memory(warp, lane);
  const std::vector<int64_t>& slots = instruction.extra->values;
  return "assertion failed: " + memory.text(memory.local<uint64_t>(slots[0])) + " (" +
         memory.text(memory.local<uint64_t>(slots[1])) + ":" + std::to_string(memory.local<uint32_t>(slots[2])) + ", " +
         memory.text(memory.local<uint64_t>(slots[3])) + ")";
}

}  // namespace flopcuda::ptxvm
