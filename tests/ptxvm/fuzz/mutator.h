// Damages PTX texts, the same way every time: mutant number n of a corpus is a function of the corpus and n.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace flopcuda::fuzz {

// Ends the process with a message if one cannot be read or is empty.
std::vector<std::string> read_files(const std::vector<std::string>& paths);

class Mutator {
 public:
  explicit Mutator(std::vector<std::string> corpus);

  std::string mutant(uint64_t number) const;

 private:
  std::vector<std::string> corpus_;
  std::vector<std::string_view> tokens_;  // of all texts
};

}  // namespace flopcuda::fuzz
