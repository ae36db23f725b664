// The small Python module flopcuda._C: what was built and what runs here. Loading it registers the operators.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

#include "cpu/kernels.h"
#include "cuda/plan.h"
#include "torch/kept_weights.h"
#include "torch/launches.h"
#include "torch/libraries.h"
#include "torch/module_calls.h"
#include "torch/passed_operators.h"
#include "torch/progress.h"

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

const char* type_name(cuda::DataType type) {
  switch (type) {
    case cuda::DataType::float32:
      return "float32";
    case cuda::DataType::float64:
      return "float64";
    case cuda::DataType::float16:
      return "float16";
    case cuda::DataType::bfloat16:
      return "bfloat16";
    case cuda::DataType::tf32:
      return "tf32";
  }
  return "unknown";
}

py::list cuda_kernels() {
  py::list list;
  for (const cuda::KernelInfo& kernel : cuda::kernels()) {
    py::dict entry;
    entry["name"] = kernel.name;
    entry["operation"] = kernel.operation == cuda::Operation::conv ? "conv" : "linear";
    entry["dtype"] = type_name(kernel.type);
    entry["counts_zero"] = kernel.counts_zero;
    entry["is_split"] = kernel.is_split;
    entry["part_unit"] = cuda::PART_UNIT_NAMES[static_cast<int>(kernel.part_unit)];
    entry["tile"] = py::make_tuple(kernel.block_m, kernel.block_n, kernel.block_k);
    entry["threads"] = kernel.threads;
    entry["unit"] = cuda::UNIT_NAMES[static_cast<int>(kernel.unit)];
    entry["multiply_share"] = kernel.multiply_share;
    entry["fixed_slices"] = kernel.fixed_slices;
    list.append(entry);
  }
  return list;
}

py::dict device_properties(const std::string& name, int capability, int multiprocessors, double hertz,
                           double bandwidth) {
  const cuda::DeviceProperties device = cuda::properties_of({name, capability, multiprocessors, hertz, bandwidth});
  py::dict entry;
  entry["multiprocessors"] = device.multiprocessors;
  entry["rates"] = device.rates;
  entry["memory_bytes"] = device.memory_bytes;
  entry["launch_cycles"] = device.launch_cycles;
  return entry;
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
  py::class_<WeightsAreKept>(module, "WeightsAreKept",
                             "While one of these lives, the CPU kernels keep weights packed that they see again.")
      .def(py::init<>());
  module.def("kept_weight_bytes", &kept_weight_bytes, "Bytes of the weights that are kept packed.");
  bind_launches(module);
  bind_module_calls(module);
  bind_progress(module);
  bind_passed_operators(module);
  module.def("take_libraries", &libraries::take,
             "From now on, those of oneDNN and cuDNN that are on are switched by what follows.");
  module.def("give_back_libraries", &libraries::give_back, "Switch them on, and then no longer.");
  module.def("allow_libraries", &libraries::allow, "Whether let_libraries_compute() does anything.",
             py::arg("allowed"));
  module.def("let_libraries_compute", &libraries::let_compute, "Switch them on, for what has no products.");
  module.def("keep_libraries_out", &libraries::keep_out, "Switch them off.");
  module.def(
      "cuda_kernels", &cuda_kernels,
      "The CUDA kernels that the planner knows, built or not: name, operation (\"conv\", "
      "\"linear\"), dtype, counts_zero, is_split (parts of a reduction are several blocks'), part_unit (what such "
      "parts "
      "have whole ones of: \"slice\", \"slice_of_taps\", \"tap\"), tile (rows, columns, products between "
      "barriers), threads, unit that multiplies, multiply_share (of the main loop's instructions).");
  module.def(
      "device_rates", [](int capability, const std::string& name) { return cuda::rates_of(capability, name); },
      "Multiply-adds a cycle of a multiprocessor, by unit, of a compute capability times ten and a device of that "
      "name.",
      py::arg("capability"), py::arg("name") = "");
  module.def("device_properties", &device_properties,
             "What the planner makes of what the CUDA runtime says of a device: its name, compute capability times "
             "ten, multiprocessors, clock in hertz and memory bandwidth in bytes a second, the last two 0 if it does "
             "not. A dictionary: multiprocessors, rates, memory_bytes and launch_cycles, as in flopcuda.ops.Device.",
             py::arg("name"), py::arg("capability"), py::arg("multiprocessors"), py::arg("hertz"),
             py::arg("bandwidth"));
  module.attr("UNITS") = cuda::UNIT_NAMES;
  module.attr("INSTRUCTION_MACS") = cuda::INSTRUCTION_MACS;
  module.attr("SCHEDULERS") = cuda::SCHEDULERS;
  module.attr("SLICE_LATENCY") = cuda::SLICE_LATENCY;
  module.attr("RESIDENT_THREADS") = cuda::RESIDENT_THREADS;
  module.attr("FILL_LATENCY") = cuda::FILL_LATENCY;
  module.attr("LAUNCH_SECONDS") = cuda::LAUNCH_SECONDS;
  module.attr("BANDWIDTH_SHARE") = cuda::BANDWIDTH_SHARE;
  module.attr("SPLIT_BYTES") = cuda::SPLIT_BYTES;
  module.attr("SPLIT_LATENCY") = cuda::SPLIT_LATENCY;
}

}  // namespace flopcuda
