// The small Python module flopcuda._C: what was built and what runs here. Loading it registers the operators of
// ops.cpp.
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "cpu/kernels.h"

namespace py = pybind11;

namespace flopcuda {
namespace {

#ifndef FLOPCUDA_CUDA_VERSION
#define FLOPCUDA_CUDA_VERSION ""
#define FLOPCUDA_ARCHITECTURES ""
#endif

cpu::Isa isa_from_name(const std::string& name) {
  for (cpu::Isa isa : {cpu::Isa::kPortable, cpu::Isa::kAvx2, cpu::Isa::kAvx512}) {
    if (name == cpu::isa_name(isa)) return isa;
  }
  throw std::invalid_argument("unknown instruction set '" + name + "': it is portable, avx2 or avx512");
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "What was built and what runs here; loading it registers torch.ops.flopcuda.";
  module.attr("cuda_version") = FLOPCUDA_CUDA_VERSION;
  module.attr("cuda_architectures") = FLOPCUDA_ARCHITECTURES;
  module.def(
      "cpu_isa", [] { return std::string(cpu::isa_name(cpu::selected_isa())); },
      "The instruction set that the CPU kernels run with.");
  module.def(
      "select_cpu_isa", [](const std::string& name) { cpu::select_isa(isa_from_name(name)); },
      "Run the CPU kernels with portable, avx2 or avx512; ValueError if this CPU lacks it.", py::arg("name"));
}

}  // namespace flopcuda
