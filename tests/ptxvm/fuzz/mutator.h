// Damages PTX texts, the same way every time: mutant number n of a corpus is a function of the corpus and n.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace flopcuda::fuzz {

class Mutator {
 public:
  explicit Mutator(std::vector<std::string> corpus);

  std::string mutant(uint64_t number) const;

 private:
  std::vector<std::string> corpus_;
  std::vector<std::string_view> tokens_;  // of all texts
};

}  // namespace flopcuda::fuzz
