// flopcuda._ptxvm: the PTX virtual machine as a Python extension. flopcuda/ptx.py is its public face.
//
// parse/: text -> syntax tree. Knows nothing of what instructions mean.
// decode/: syntax tree -> programs. One rule for each opcode; registers, control flow, memory layout.
// execute/: programs over a grid of blocks. One handler for each (operation, type, variant), 32 lanes at a time.
// observe/: counters, findings, the shadow of shared memory.
//
// Data flows downwards. Nothing here depends on the rest of csrc/, on CUDA or on torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <memory>
#include <optional>

#include "decode/decoder.h"
#include "decode/rules.h"
#include "error.h"
#include "execute/handlers.h"
#include "execute/launch.h"
#include "observe/report.h"
#include "parse/parser.h"

namespace py = pybind11;

namespace flopcuda::ptxvm {
namespace {

const char* space_name(Space space) {
  switch (space) {
    case Space::kGlobal:
      return "global";
    case Space::kShared:
      return "shared";
    case Space::kLocal:
      return "local";
    case Space::kParam:
      return "param";
    default:
      return "";
  }
}

struct Module {
  DecodedModule decoded;
  std::shared_ptr<DeviceHeap> heap = std::make_shared<DeviceHeap>();

  explicit Module(std::string text) : decoded(decode(parse(std::move(text)))) {
    for (const auto& program : decoded.programs) bind_handlers(*program, decoded.syntax);
  }

  const Program& kernel(const std::string& name) const {
    for (const auto& program : decoded.programs) {
      if (program->name == name) return *program;
    }
    throw PtxError("the module has no kernel of this name", name);
  }
};

py::list describe_kernels(const Module& module) {
  py::list kernels;
  for (const auto& program : module.decoded.programs) {
    py::list parameters;
    for (const ParameterSlot& slot : program->functions[0].parameters) {
      py::dict parameter;
      parameter["name"] = slot.name;
      parameter["offset"] = slot.offset;
      parameter["size"] = slot.size;
      parameter["type"] = std::string(name_of(slot.type));
      parameter["is_struct"] = slot.is_array;
      parameters.append(parameter);
    }
    py::dict kernel;
    kernel["name"] = program->name;
    kernel["parameters"] = parameters;
    kernel["shared_bytes"] = program->static_shared_bytes;
    kernel["local_bytes"] = program->functions[0].local_bytes;
    kernel["registers"] = program->functions[0].registers;
    kernel["max_threads"] = program->max_threads;
    kernels.append(kernel);
  }
  return kernels;
}

py::list describe_variables(const Module& module) {
  py::list variables;
  for (const ModuleVariable& variable : module.decoded.variables) {
    variables.append(py::make_tuple(variable.name, space_name(variable.space), variable.address, variable.size));
  }
  return variables;
}

std::string file_name(const Module& module, int index) {
  const std::vector<std::string>& files = module.decoded.syntax.files;
  return index >= 0 && index < static_cast<int>(files.size()) ? files[static_cast<size_t>(index)] : "";
}

py::list describe_findings(const Module& module, const Program& program, const LaunchResult& result) {
  py::list list;
  for (const Finding& finding : result.findings) {
    const InstructionInfo& info = program.info[finding.instruction];
    py::dict entry;
    entry["kind"] = kCheckNames[static_cast<int>(finding.check)];
    entry["kernel"] = program.name;
    entry["function"] = program.functions[info.function].name;
    entry["line"] = info.line;
    entry["text"] = module.decoded.syntax.line_text(info.line);
    entry["source_file"] = file_name(module, info.source_file);
    entry["source_line"] = info.source_line;
    entry["block"] = py::make_tuple(finding.block[0], finding.block[1], finding.block[2]);
    entry["thread"] = py::make_tuple(finding.thread[0], finding.thread[1], finding.thread[2]);
    entry["address"] = finding.address;
    entry["message"] = finding.message;
    entry["count"] = finding.count;
    list.append(entry);
  }
  return list;
}

py::list describe_rows(const Module& module, const Program& program, const LaunchResult& result) {
  py::list rows;
  for (const InstructionRow& row : instruction_rows(program, result.counters)) {
    const InstructionInfo& info = *row.info;
    rows.append(py::make_tuple(info.name, row.lanes, space_name(row.space), row.memory.requests, row.memory.units,
                               row.memory.ideal, std::string(name_of(info.fma_type)), info.macs_per_lane, info.line,
                               file_name(module, info.source_file), info.source_line,
                               program.functions[info.function].name));
  }
  return rows;
}

using AllocationTuple = std::tuple<uint64_t, uint64_t, bool, std::string>;

py::dict launch(const Module& module, const std::string& name, const py::bytes& parameters,
                const std::vector<AllocationTuple>& allocations, const std::array<uint32_t, 3>& grid,
                const std::array<uint32_t, 3>& block, int64_t shared_bytes, int threads, std::optional<uint64_t> seed,
                uint32_t checks, int64_t budget, bool cooperative) {
  const Program& program = module.kernel(name);
  LaunchOptions options;
  options.grid = grid;
  options.block = block;
  options.dynamic_shared_bytes = shared_bytes;
  options.threads = threads;
  options.shuffle = seed.has_value();
  options.seed = seed.value_or(0);
  options.checks = checks;
  options.instruction_budget = budget;
  options.cooperative = cooperative;
  const std::string_view bytes(parameters);
  MemoryMap memory(module.heap);
  for (const ModuleVariable& variable : module.decoded.variables) {
    memory.add({variable.address, variable.address + static_cast<uint64_t>(variable.size),
                variable.space == Space::kGlobal, variable.name});
  }
  for (const auto& [address, size, writable, label] : allocations)
    memory.add({address, address + size, writable, label});
  LaunchResult result;
  {
    const py::gil_scoped_release release;
    result = run_launch(program, options, std::vector<uint8_t>(bytes.begin(), bytes.end()), memory);
  }
  py::dict out;
  out["findings"] = describe_findings(module, program, result);
  out["rows"] = describe_rows(module, program, result);
  out["branches"] = result.counters.branches;
  out["diverged_branches"] = result.counters.diverged_branches;
  out["barriers"] = result.counters.barriers;
  out["warp_instructions"] = result.counters.warp_instructions;
  out["output"] = py::bytes(result.output);
  out["stopped"] = result.trapped;
  out["seconds"] = result.seconds;
  return out;
}

}  // namespace
}  // namespace flopcuda::ptxvm

PYBIND11_MODULE(_ptxvm, m) {
  using namespace flopcuda::ptxvm;
  m.doc() = "A virtual machine for NVIDIA PTX; use flopcuda.ptx";
  static py::exception<PtxError> error(m, "PtxError", PyExc_RuntimeError);
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const PtxError& e) {
      py::object instance = py::reinterpret_borrow<py::object>(error.ptr())(py::str(e.what()));
      instance.attr("kernel") = e.kernel();
      instance.attr("line") = e.line();
      instance.attr("text") = e.text();
      PyErr_SetObject(error.ptr(), instance.ptr());
    }
  });
  py::class_<Module>(m, "Module")
      .def(py::init<std::string>(), py::arg("text"))
      .def_property_readonly("kernels", &describe_kernels)
      .def_property_readonly("variables", &describe_variables)
      .def_property_readonly("version", [](const Module& module) { return module.decoded.syntax.version; })
      .def_property_readonly("target", [](const Module& module) { return module.decoded.syntax.target; })
      .def("launch", &launch, py::arg("name"), py::arg("parameters"), py::arg("allocations"), py::arg("grid"),
           py::arg("block"), py::arg("shared_bytes"), py::arg("threads"), py::arg("seed"), py::arg("checks"),
           py::arg("budget"), py::arg("cooperative"));
  m.def("lane_instruction_set", &lane_instruction_set);
  m.def("set_lane_instruction_set", &set_lane_instruction_set, py::arg("name"));
  m.attr("opcodes") = py::cast(opcode_names());
  m.attr("check_names") = py::cast(std::vector<std::string>(std::begin(kCheckNames), std::end(kCheckNames)));
}
