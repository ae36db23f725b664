// See architecture.h.
#include "architecture.h"

namespace flopcuda::vcuda {
namespace {

constexpr int kKibi = 1024;
constexpr Architecture kArchitectures[] = {
    {75, 1024, 16, 64 * kKibi, 64 * kKibi},     //
    {80, 2048, 32, 164 * kKibi, 163 * kKibi},   //
    {86, 1536, 16, 100 * kKibi, 99 * kKibi},    //
    {87, 1536, 16, 164 * kKibi, 163 * kKibi},   //
    {89, 1536, 24, 100 * kKibi, 99 * kKibi},    //
    {90, 2048, 32, 228 * kKibi, 227 * kKibi},   //
    {100, 2048, 32, 228 * kKibi, 227 * kKibi},  //
    {103, 2048, 32, 228 * kKibi, 227 * kKibi},  //
    {120, 1536, 24, 100 * kKibi, 99 * kKibi},   //
    {121, 1536, 24, 100 * kKibi, 99 * kKibi},   //
};

}  // namespace

const Architecture* find_architecture(int capability) {
  for (const Architecture& candidate : kArchitectures) {
    if (candidate.capability == capability) return &candidate;
  }
  return nullptr;
}

std::string known_architectures() {
  std::string names;
  for (const Architecture& entry : kArchitectures)
    names += (names.empty() ? "" : ", ") + std::to_string(entry.capability);
  return names;
}

}  // namespace flopcuda::vcuda
