// See records.h and vcuda.h.
#include "records.h"

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <deque>
#include <map>
#include <mutex>
#include <set>

#include "error.h"
#include "json.h"
#include "observe/report.h"
#include "vcuda.h"

namespace flopcuda::vcuda {
namespace {

constexpr size_t kMostLaunches = 10'000;
constexpr size_t kMostFindings = 10'000;

struct LaunchRecord {
  std::string kernel;
  int device;
  std::array<unsigned, 3> grid, block;
  size_t shared_bytes;
  double seconds;
  uint64_t lane_instructions, warp_instructions;
  std::map<std::string, uint64_t> fma_lanes;
  uint64_t global_requests, global_sectors, shared_requests, shared_wavefronts, bank_conflicts;
  uint64_t branches, diverged_branches, barriers;
  size_t findings;
};

struct FindingRecord {
  std::string kernel, function, text, source_file;
  int line, source_line;
  int device;
  ptxvm::Finding finding;
};

struct Records {
  std::mutex mutex;
  uint64_t launch_count = 0;
  std::deque<LaunchRecord> launches;
  std::deque<FindingRecord> findings;
  std::set<std::string> unsupported;
};

Records& records() { return immortal<Records>(); }

template <class Record>
void append(std::deque<Record>& list, Record record, size_t most) {
  list.push_back(std::move(record));
  if (list.size() > most) list.pop_front();
}

void count_instructions(LaunchRecord& record, const ptxvm::Program& program, const ptxvm::Counters& counters) {
  for (const ptxvm::InstructionRow& row : ptxvm::instruction_rows(program, counters)) {
    const ptxvm::InstructionInfo& info = *row.info;
    record.lane_instructions += row.lanes;
    if (info.fma_type != ptxvm::Type::kNone) {
      record.fma_lanes[std::string(ptxvm::name_of(info.fma_type))] +=
          row.lanes * static_cast<uint64_t>(info.macs_per_lane);
    }
    if (row.space == ptxvm::Space::kGlobal) {
      record.global_requests += row.memory.requests;
      record.global_sectors += row.memory.units;
    } else if (row.space == ptxvm::Space::kShared) {
      record.shared_requests += row.memory.requests;
      record.shared_wavefronts += row.memory.units;
      record.bank_conflicts += row.memory.units - row.memory.ideal;
    }
  }
}

FindingRecord describe(const LoadedModule& module, const ptxvm::Program& program, const ptxvm::Finding& finding,
                       int device) {
  const ptxvm::InstructionInfo& info = program.info[finding.instruction];
  const ptxvm::syntax::Module& syntax = module.decoded().syntax;
  const auto file = static_cast<size_t>(info.source_file);
  return {program.name,
          program.functions[info.function].name,
          syntax.line_text(info.line),
          file < syntax.files.size() ? syntax.files[file] : "",
          info.line,
          info.source_line,
          device,
          finding};
}

std::string place_name(const std::array<uint32_t, 3>& at) {
  return "(" + std::to_string(at[0]) + ", " + std::to_string(at[1]) + ", " + std::to_string(at[2]) + ")";
}

template <class Number>
void write_extent(JsonWriter& json, const char* name, const std::array<Number, 3>& extent) {
  json.key(name).begin_list();
  for (Number size : extent) json.value(size);
  json.end_list();
}

void write(JsonWriter& json, const LaunchRecord& record) {
  json.begin_object().member("kernel", record.kernel).member("device", record.device);
  write_extent(json, "grid", record.grid);
  write_extent(json, "block", record.block);
  json.member("shared_bytes", record.shared_bytes).member("seconds", record.seconds);
  json.member("lane_instructions", record.lane_instructions).member("warp_instructions", record.warp_instructions);
  json.key("fma_lanes").begin_object();
  for (const auto& [type, lanes] : record.fma_lanes) json.member(type, lanes);
  json.end_object();
  json.member("global_requests", record.global_requests).member("global_sectors", record.global_sectors);
  json.member("shared_requests", record.shared_requests).member("shared_wavefronts", record.shared_wavefronts);
  json.member("bank_conflicts", record.bank_conflicts).member("branches", record.branches);
  json.member("diverged_branches", record.diverged_branches).member("barriers", record.barriers);
  json.member("findings", record.findings).end_object();
}

void write(JsonWriter& json, const FindingRecord& record) {
  const ptxvm::Finding& finding = record.finding;
  json.begin_object().member("kind", std::string(ptxvm::kCheckNames[static_cast<int>(finding.check)]));
  json.member("kernel", record.kernel).member("function", record.function).member("line", record.line);
  json.member("text", record.text).member("source_file", record.source_file);
  json.member("source_line", record.source_line);
  write_extent(json, "block", finding.block);
  write_extent(json, "thread", finding.thread);
  json.member("address", finding.address).member("message", finding.message).member("count", finding.count);
  json.member("device", record.device).end_object();
}

void write(JsonWriter& json, const std::string& name) { json.value(name); }

template <class List>
void write_list(JsonWriter& json, const List& list) {
  json.begin_list();
  for (const auto& entry : list) write(json, entry);
  json.end_list();
}

// Kept for the thread that asked.
const char* keep(JsonWriter& json) {
  thread_local std::string text;
  text = json.take();
  return text.c_str();
}

}  // namespace

void record_launch(const KernelLaunch& launch, const Device& device, const LoadedModule& module,
                   const ptxvm::Program& program, const ptxvm::LaunchResult& result) {
  LaunchRecord record{};
  record.kernel = program.name;
  record.device = device.ordinal;
  record.grid = {launch.grid.x, launch.grid.y, launch.grid.z};
  record.block = {launch.block.x, launch.block.y, launch.block.z};
  record.shared_bytes = launch.shared_bytes;
  record.seconds = result.seconds;
  record.warp_instructions = result.counters.warp_instructions;
  record.branches = result.counters.branches;
  record.diverged_branches = result.counters.diverged_branches;
  record.barriers = result.counters.barriers;
  record.findings = result.findings.size();
  count_instructions(record, program, result.counters);
  Records& all = records();
  const std::lock_guard<std::mutex> lock(all.mutex);
  ++all.launch_count;
  append(all.launches, std::move(record), kMostLaunches);
  for (const ptxvm::Finding& finding : result.findings) {
    append(all.findings, describe(module, program, finding, device.ordinal), kMostFindings);
  }
}

void print_finding(const LoadedModule& module, const ptxvm::Program& program, const ptxvm::Finding& finding) {
  const FindingRecord record = describe(module, program, finding, 0);
  const std::string source =
      record.source_file.empty() ? "" : " (" + record.source_file + ":" + std::to_string(record.source_line) + ")";
  std::fprintf(stderr, "flopcuda virtual CUDA: %s, line %d%s, block %s, thread %s: %s [%s; %" PRIu64 " times]\n",
               record.kernel.c_str(), record.line, source.c_str(), place_name(finding.block).c_str(),
               place_name(finding.thread).c_str(), finding.message.c_str(), record.text.c_str(), finding.count);
}

}  // namespace flopcuda::vcuda

using namespace flopcuda::vcuda;

VCUDA_EXPORT const char* flopcuda_vcuda_version() { return "1"; }

VCUDA_EXPORT const char* flopcuda_vcuda_findings_json() {
  JsonWriter json;
  const std::lock_guard<std::mutex> lock(records().mutex);
  write_list(json, records().findings);
  return keep(json);
}

VCUDA_EXPORT const char* flopcuda_vcuda_launches_json() {
  JsonWriter json;
  const std::lock_guard<std::mutex> lock(records().mutex);
  json.begin_object().member("total", records().launch_count).key("launches");
  write_list(json, records().launches);
  json.end_object();
  return keep(json);
}

VCUDA_EXPORT const char* flopcuda_vcuda_unsupported() {
  JsonWriter json;
  const std::lock_guard<std::mutex> lock(records().mutex);
  write_list(json, records().unsupported);
  return keep(json);
}

VCUDA_EXPORT void flopcuda_vcuda_clear() {
  const std::lock_guard<std::mutex> lock(records().mutex);
  records().launches.clear();
  records().findings.clear();
  records().unsupported.clear();
  records().launch_count = 0;
}

VCUDA_EXPORT int flopcuda_vcuda_remember_unsupported(const char* name) {
  const std::lock_guard<std::mutex> lock(records().mutex);
  records().unsupported.insert(name);
  return cudaErrorNotSupported;
}
