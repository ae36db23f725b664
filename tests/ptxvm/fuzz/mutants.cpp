// Prints damaged PTX: mutants FIRST to FIRST + COUNT - 1 of the texts, a NUL byte behind each.
//
//   mutants FIRST COUNT FILE...
//
// NUL bytes of a mutant itself are left out.
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "mutator.h"

int main(int count, char** arguments) {
  if (count < 4) {
    std::cerr << "usage: mutants FIRST COUNT FILE...\n";
    return 2;
  }
  const uint64_t first = std::strtoull(arguments[1], nullptr, 10);
  const uint64_t mutants = std::strtoull(arguments[2], nullptr, 10);
  const flopcuda::fuzz::Mutator mutator(flopcuda::fuzz::read_files({arguments + 3, arguments + count}));
  for (uint64_t number = first; number < first + mutants; ++number) {
    std::string text = mutator.mutant(number);
    text.erase(std::remove(text.begin(), text.end(), '\0'), text.end());
    std::cout.write(text.c_str(), static_cast<std::streamsize>(text.size() + 1));
  }
}
