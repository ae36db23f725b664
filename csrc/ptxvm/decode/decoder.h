// Syntax tree -> programs: gives the module's variables their place in memory and makes every kernel ready to run.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "decode/program.h"
#include "parse/syntax.h"

namespace flopcuda::ptxvm {

// A .global or .const variable in the host's memory; lives as long as the module.
struct ModuleVariable {
  std::string name;
  Space space = Space::kGlobal;
  uint64_t address = 0;
  int64_t size = 0;
};

struct DecodedModule {
  syntax::Module syntax;
  std::vector<ModuleVariable> variables;
  std::vector<std::unique_ptr<uint8_t, void (*)(void*)>> memory;
  std::vector<std::unique_ptr<Program>> programs;  // one for each kernel
};

// Variables that have their place already, and keep the values they have there: name -> address.
using PlacedVariables = std::unordered_map<std::string, uint64_t>;

// Throws PtxError.
DecodedModule decode(syntax::Module module, const PlacedVariables& placed = {});

}  // namespace flopcuda::ptxvm
