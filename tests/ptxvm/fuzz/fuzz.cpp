// Loads damaged PTX and runs what still loads, under AddressSanitizer and UndefinedBehaviorSanitizer.
//
//   fuzz [--first N] [--count N] [--seconds S] FILE...
//
// A mutant may be refused with a PtxError that names a line of it, or load and run to an end within its budget.
// Anything else ends the process with a report and the mutant's number, for which mutants.cpp shows its text. build.py
// builds both.
#include <sys/time.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "decode/decoder.h"
#include "error.h"
#include "execute/handlers.h"
#include "execute/launch.h"
#include "mutator.h"
#include "parse/parser.h"

namespace flopcuda::ptxvm {

// The same templates as the portable handlers, compiled again: they would only double the time to build.
bool register_core_avx512(HandlerTable&) { return false; }
bool register_core_avx2(HandlerTable&) { return false; }

}  // namespace flopcuda::ptxvm

// Whatever a sanitizer finds ends in SIGABRT, whose handler names the mutant.
extern "C" const char* __asan_default_options() { return "abort_on_error=1"; }
extern "C" const char* __ubsan_default_options() { return "abort_on_error=1:print_stacktrace=1"; }

namespace {

using namespace flopcuda::ptxvm;
using flopcuda::fuzz::Mutator;

volatile uint64_t current_mutant = 0;

void on_signal(int signal) {
  char text[80];
  const int length =
      std::snprintf(text, sizeof text, "mutant %llu %s\n", static_cast<unsigned long long>(current_mutant),
                    signal == SIGPROF ? "took too long" : "failed");
  _exit(write(STDERR_FILENO, text, static_cast<size_t>(length)) < 0 ? 4 : 3);
}

// Of processor time, so that a busy machine does not matter.
void limit_seconds(long seconds) {
  const itimerval limit{{0, 0}, {seconds, 0}};
  setitimer(ITIMER_PROF, &limit, nullptr);
}

[[noreturn]] void fail(const std::string& message) {
  std::fprintf(stderr, "%s\n", message.c_str());
  std::abort();
}

void check_error(const PtxError& error, const std::string& text) {
  std::istringstream lines(text);
  std::string line;
  for (int i = 0; i < error.line() && std::getline(lines, line); ++i) continue;
  const bool after_end = error.line() > 0 && !lines;
  if (error.line() < 1 || (!after_end && line.find(error.text()) == std::string::npos)) {
    fail(std::string("the error does not name a line: ") + error.what());
  }
}

// Memory of the size that a kernel is told, with the sanitizer's red zones around it.
struct Buffers {
  static constexpr size_t kBytes = 1024;
  static constexpr uint8_t kPattern = 0x5a;
  std::unique_ptr<uint8_t[]> open{new uint8_t[kBytes]()};
  std::unique_ptr<uint8_t[]> read_only{new uint8_t[kBytes]};

  Buffers() { std::memset(read_only.get(), kPattern, kBytes); }

  void add_to(MemoryMap& memory) const {
    const uint64_t first = reinterpret_cast<uint64_t>(open.get());
    const uint64_t second = reinterpret_cast<uint64_t>(read_only.get());
    memory.add({first, first + kBytes, true, "open"});
    memory.add({second, second + kBytes, false, "read_only"});
  }
  // Pointers at every place where one may be expected, small numbers elsewhere.
  std::vector<uint8_t> parameters(const Program& program) const {
    std::vector<uint8_t> block(static_cast<size_t>(program.parameter_bytes));
    bool turn = false;
    for (const ParameterSlot& slot : program.functions[0].parameters) {
      for (int64_t at = slot.offset; at < slot.offset + slot.size;) {
        const int64_t left = slot.offset + slot.size - at;
        const uint64_t value = left < 8 ? 48 : reinterpret_cast<uint64_t>((turn ? read_only : open).get());
        turn ^= left >= 8;
        const int64_t bytes = std::min<int64_t>(left, 8);
        std::memcpy(block.data() + at, &value, static_cast<size_t>(bytes));
        at += bytes;
      }
    }
    return block;
  }
  bool is_intact() const {
    for (size_t i = 0; i < kBytes; ++i) {
      if (read_only[i] != kPattern) return false;
    }
    return true;
  }
};

LaunchOptions options_for(const Program& program, uint64_t number) {
  constexpr uint32_t kThreads[] = {64, 1, 33, 128};
  LaunchOptions options;
  options.grid = {2, 1, 1};
  options.block[0] = kThreads[number % 4];
  if (program.max_threads > 0 && options.block[0] > program.max_threads) {
    options.block[0] = static_cast<uint32_t>(program.max_threads);
  }
  options.dynamic_shared_bytes = number % 3 == 0 ? 0 : 128;
  options.threads = 1 + static_cast<int>(number % 2);
  options.shuffle = number % 5 < 2;
  options.seed = number;
  options.checks = number % 7 < 5 ? ~0u : static_cast<uint32_t>(number * 0x9e3779b9u);
  options.instruction_budget = 5'000;
  return options;
}

bool run(const DecodedModule& module, const Program& program, uint64_t number) {
  const Buffers buffers;
  MemoryMap memory;
  buffers.add_to(memory);
  for (const ModuleVariable& variable : module.variables) {
    memory.add({variable.address, variable.address + static_cast<uint64_t>(variable.size),
                variable.space == Space::kGlobal, variable.name});
  }
  try {
    run_launch(program, options_for(program, number), buffers.parameters(program), memory);
  } catch (const PtxError&) {
    return false;
  }
  if (!buffers.is_intact()) fail("read-only memory was written");
  return true;
}

struct Tally {
  uint64_t refused = 0, loaded = 0, launched = 0;
};

void try_mutant(const std::string& text, uint64_t number, Tally& tally) {
  try {
    DecodedModule module = decode(parse(text));
    for (const auto& program : module.programs) bind_handlers(*program, module.syntax);
    ++tally.loaded;
    for (const auto& program : module.programs) tally.launched += run(module, *program, number);
  } catch (const PtxError& error) {
    ++tally.refused;
    check_error(error, text);
  } catch (const std::exception& error) {
    fail(std::string("another exception: ") + error.what());
  }
}

}  // namespace

int main(int count, char** arguments) {
  uint64_t first = 0, mutants = 100;
  long seconds = 20;
  std::vector<std::string> files;
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    if (argument.compare(0, 2, "--") != 0) {
      files.push_back(argument);
    } else if (++i < count) {
      const uint64_t value = std::strtoull(arguments[i], nullptr, 10);
      if (argument == "--first") first = value;
      if (argument == "--count") mutants = value;
      if (argument == "--seconds") seconds = static_cast<long>(value);
    }
  }
  if (files.empty()) fail("no seed files");
  std::vector<std::string> corpus = flopcuda::fuzz::read_files(files);
  Tally original;
  for (const std::string& text : corpus) try_mutant(text, 0, original);
  if (original.refused) fail("a seed does not load");
  const Mutator mutator(std::move(corpus));
  std::signal(SIGABRT, on_signal);
  std::signal(SIGPROF, on_signal);
  Tally tally;
  for (uint64_t i = first; i < first + mutants; ++i) {
    current_mutant = i;
    limit_seconds(seconds);
    try_mutant(mutator.mutant(i), i, tally);
  }
  std::printf("%llu mutants: %llu refused, %llu loaded, %llu launches\n", static_cast<unsigned long long>(mutants),
              static_cast<unsigned long long>(tally.refused), static_cast<unsigned long long>(tally.loaded),
              static_cast<unsigned long long>(tally.launched));
  return 0;
}
