// Functions that the machine executes itself.
#include "execute/native.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

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
        return found.end ? reinterpret_cast<const char*>(address) : nullptr;
      }
      default:
        return nullptr;
    }
  }

  Warp& warp_;
  int lane_;
};

// One conversion of a format, from % to its letter.
struct Conversion {
  std::string text;  // without length modifiers
  int stars = 0;
  bool is_64_bit = false;
  char letter = 0;
};

Conversion read_conversion(const std::string& format, size_t& at) {
  Conversion result;
  result.text = "%";
  for (++at; at < format.size(); ++at) {
    const char c = format[at];
    if (std::strchr("hlLjzt", c)) {
      result.is_64_bit |= c != 'h';
      continue;
    }
    result.stars += c == '*';
    if (std::strchr("-+ #0123456789.*", c)) {
      if (result.text.size() < 24) result.text += c;
      continue;
    }
    result.letter = c;
    ++at;
    break;
  }
  return result;
}

template <class T>
std::string print_one(const Conversion& conversion, const std::string& suffix, const int* stars, T value) {
  char buffer[512];
  const std::string format = conversion.text + suffix;
  if (conversion.stars == 0)
    std::snprintf(buffer, sizeof buffer, format.c_str(), value);
  else if (conversion.stars == 1)
    std::snprintf(buffer, sizeof buffer, format.c_str(), stars[0], value);
  else
    std::snprintf(buffer, sizeof buffer, format.c_str(), stars[0], stars[1], value);
  return buffer;
}

class Arguments {
 public:
  Arguments(const LaneMemory& memory, uint64_t address) : memory_(memory), address_(address) {}
  template <class T>
  T next() {
    address_ = (address_ + sizeof(T) - 1) / sizeof(T) * sizeof(T);
    T value{};
    memory_.read(address_, value);
    address_ += sizeof(T);
    return value;
  }

 private:
  const LaneMemory& memory_;
  uint64_t address_;
};

std::string format_lane(const LaneMemory& memory, uint64_t format_address, uint64_t arguments_address) {
  const std::string format = memory.text(format_address);
  Arguments arguments(memory, arguments_address);
  std::string out;
  for (size_t at = 0; at < format.size();) {
    if (format[at] != '%') {
      out += format[at++];
      continue;
    }
    const Conversion conversion = read_conversion(format, at);
    if (conversion.letter == '%') {
      out += '%';
      continue;
    }
    int stars[2] = {0, 0};
    if (conversion.stars > 2) continue;
    for (int i = 0; i < conversion.stars; ++i) stars[i] = std::min(arguments.next<int>(), 256);
    const std::string letter(1, conversion.letter);
    if (std::strchr("di", conversion.letter) && conversion.letter) {
      const long long value = conversion.is_64_bit ? arguments.next<int64_t>() : arguments.next<int32_t>();
      out += print_one(conversion, "ll" + letter, stars, value);
    } else if (std::strchr("uoxX", conversion.letter) && conversion.letter) {
      const unsigned long long value = conversion.is_64_bit ? arguments.next<uint64_t>() : arguments.next<uint32_t>();
      out += print_one(conversion, "ll" + letter, stars, value);
    } else if (conversion.letter == 'c') {
      out += print_one(conversion, letter, stars, arguments.next<int32_t>());
    } else if (conversion.letter == 's') {
      out += print_one(conversion, letter, stars, memory.text(arguments.next<uint64_t>()).c_str());
    } else if (conversion.letter == 'p') {
      out += print_one(conversion, letter, stars, reinterpret_cast<void*>(arguments.next<uint64_t>()));
    } else if (conversion.letter && std::strchr("eEfFgGaA", conversion.letter)) {
      out += print_one(conversion, letter, stars, arguments.next<double>());
    }
  }
  return out;
}

}  // namespace

void native_printf(Warp& warp, const Instruction& instruction) {
  const std::vector<int64_t>& slots = instruction.extra->values;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.mask >> lane & 1)) continue;
    const LaneMemory memory(warp, lane);
    const std::string text = format_lane(memory, memory.local<uint64_t>(slots[0]), memory.local<uint64_t>(slots[1]));
    {
      const std::lock_guard<std::mutex> lock(warp.launch->output_mutex);
      if (warp.launch->output.size() < (1u << 20)) warp.launch->output += text;
    }
    if (instruction.u[0]) memory.set_local<int32_t>(slots[2], 1);
  }
}

// What a kernel allocates lives until it frees it or the process ends, as on a device.
void native_malloc(Warp& warp, const Instruction& instruction) {
  const std::vector<int64_t>& slots = instruction.extra->values;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.mask >> lane & 1)) continue;
    const LaneMemory memory(warp, lane);
    const uint64_t bytes = memory.local<uint64_t>(slots[0]);
    void* place = bytes <= (1u << 26) ? std::calloc(1, bytes + 1) : nullptr;
    const uint64_t address = reinterpret_cast<uint64_t>(place);
    if (place) warp.launch->memory.add({address, address + bytes, true, "malloc"});
    if (instruction.u[0]) memory.set_local<uint64_t>(slots[1], address);
  }
}

void native_free(Warp& warp, const Instruction& instruction) {
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.mask >> lane & 1)) continue;
    const uint64_t address = LaneMemory(warp, lane).local<uint64_t>(instruction.extra->values[0]);
    const Allocation found = warp.launch->memory.find(address, address);
    if (address == 0) continue;
    if (found.begin != address || found.name != "malloc") {
      warp.report(Check::kBounds, instruction.index, lane, address, "free of memory that malloc did not give");
      continue;
    }
    warp.launch->memory.remove(address);
    std::free(reinterpret_cast<void*>(address));
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
