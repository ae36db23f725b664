// See settings.h.
#include "settings.h"

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "architecture.h"
#include "observe/findings.h"

namespace flopcuda::vcuda {
namespace {

constexpr const char* kPrefix = "FLOPCUDA_VCUDA_";

[[noreturn]] void refuse(const char* name, std::string_view value, const std::string& wanted) {
  std::fprintf(stderr, "flopcuda virtual CUDA: %s%s must be %s, not '%s'\n", kPrefix, name, wanted.c_str(),
               std::string(value).c_str());
  std::exit(1);
}

template <class Number>
void read_number(const char* name, Number& value, Number least, Number most) {
  const char* text = std::getenv((std::string(kPrefix) + name).c_str());
  if (!text || !*text) return;
  const std::string_view view(text);
  const auto [end, error] = std::from_chars(view.begin(), view.end(), value);
  if (error != std::errc() || end != view.end() || value < least || value > most) {
    refuse(name, view, "a number from " + std::to_string(least) + " to " + std::to_string(most));
  }
}

uint32_t check_named(std::string_view name) {
  for (int i = 0; i < ptxvm::kCheckCount; ++i) {
    if (name == ptxvm::kCheckNames[i]) return 1u << i;
  }
  return 0;
}

// "all", "none" or names with commas between them.
void read_checks(uint32_t& checks) {
  const char* text = std::getenv("FLOPCUDA_VCUDA_CHECKS");
  if (!text || !*text || std::string_view(text) == "all") return;
  checks = 0;
  if (std::string_view(text) == "none") return;
  std::string_view rest(text);
  while (!rest.empty()) {
    const std::string_view name = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), name.size() + 1));
    const uint32_t bit = check_named(name);
    if (!bit) refuse("CHECKS", text, "'all', 'none' or names of checks with commas between them");
    checks |= bit;
  }
}

Settings read() {
  Settings result;
  read_number<int>("ARCH", result.architecture, 75, 999);
  if (!find_architecture(result.architecture)) {
    refuse("ARCH", std::to_string(result.architecture), "one of " + known_architectures());
  }
  read_number<size_t>("MEMORY", result.memory, 1, size_t{1} << 46);
  read_number<int>("DEVICES", result.devices, 0, 64);
  read_number<int>("THREADS", result.threads, 0, 1024);
  read_number<int64_t>("BUDGET", result.budget, 1, INT64_MAX);
  uint64_t seed = 0;
  const char* text = std::getenv("FLOPCUDA_VCUDA_SEED");
  if (text && *text) {
    read_number<uint64_t>("SEED", seed, 0, UINT64_MAX);
    result.seed = seed;
  }
  read_checks(result.checks);
  return result;
}

}  // namespace

const Settings& settings() {
  static const Settings instance = read();
  return instance;
}

}  // namespace flopcuda::vcuda
