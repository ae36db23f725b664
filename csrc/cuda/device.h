// What the choice of a kernel needs to know of a device. No CUDA here: launch.h asks the runtime, others say.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace flopcuda::cuda {

// What executes a kernel's multiply-adds: fused multiply-add units, or tensor cores by the type of their operands.
enum class Unit { fma_f32, fma_f64, mma_f16, mma_tf32, mma_f64 };
constexpr int UNITS = 5;
constexpr std::array<const char*, UNITS> UNIT_NAMES = {"fma_f32", "fma_f64", "mma_f16", "mma_tf32", "mma_f64"};

constexpr bool is_tensor_core(Unit unit) { return unit >= Unit::mma_f16; }

// Multiply-adds of one instruction of a warp: a lane each, or the tile of an mma (m16n8k16, m16n8k8, m8n8k4).
constexpr std::array<int32_t, UNITS> INSTRUCTION_MACS = {32, 32, 2048, 1024, 256};

// Multiply-adds a cycle of one multiprocessor, by unit; 0 for a unit that it lacks.
using Rates = std::array<double, UNITS>;

// Those of a compute capability, times ten (80); of the last known one before it if it is not known. GeForce cards,
// which the name of a device says it is one of, have less of the tensor cores' than others of their capability.
Rates rates_of(int capability, std::string_view name = {});

// Of a multiprocessor, each issues one instruction a cycle: NVIDIA's whitepapers since Volta.
constexpr int SCHEDULERS = 4;

// Cycles that a block waits in each slice: a barrier, and twice the 29 of a read of shared memory (Luo et al.,
// arXiv:2402.13499).
constexpr double SLICE_LATENCY = 100;

// Seconds before a kernel that follows another in a stream: 3.8 us for one of 2.9 us (NVIDIA, Getting Started with CUDA
// Graphs, on a V100).
constexpr double LAUNCH_SECONDS = 0.9e-6;

// Of the peak bandwidth of memory, what a copy reaches (Luo et al., arXiv:2402.13499).
constexpr double BANDWIDTH_SHARE = 0.91;

// Cycles before a block's first slice has come from memory (466 on A100, 479 on H100: ibidem).
constexpr double FILL_LATENCY = 480;

// What a split reduction costs: bytes a cycle of a multiprocessor to and from L2, of which an A100 reads 5,120 a cycle
// (NVIDIA's whitepaper), and cycles in which a block's last ticket is waited for: a write, the ticket and a read, each
// as long as a read of L2 (some 270: Luo et al., ibidem).
constexpr double SPLIT_BYTES = 5120.0 / 108;
constexpr double SPLIT_LATENCY = 3 * 270;

// Threads of a multiprocessor for which the launch bounds of most kernels leave registers.
constexpr int RESIDENT_THREADS = 512;

constexpr double A100_HERTZ = 1.41e9;

// An A100 where nothing else is said.
struct DeviceProperties {
  int32_t multiprocessors = 108;
  Rates rates = rates_of(80);
  // That memory moves in a cycle, for each multiprocessor: of 2,039 GB/s.
  double memory_bytes = BANDWIDTH_SHARE * 2039e9 / A100_HERTZ / 108;
  // Before a kernel that follows another.
  double launch_cycles = LAUNCH_SECONDS * A100_HERTZ;
  // Blocks of each of kernels() that a multiprocessor holds at a time; where it is empty, RESIDENT_THREADS.
  std::vector<int32_t> resident_blocks;
};

// What the CUDA runtime says of a device, or its maker. The runtime may say 0 of clocks, as for a part of a GPU or a
// virtual one.
struct DeviceFacts {
  std::string_view name;  // "NVIDIA GeForce RTX 4090"
  int capability;         // times ten
  int32_t multiprocessors;
  double hertz;      // of multiprocessors, at most
  double bandwidth;  // of memory, its peak, in bytes a second
};

// Without the resident blocks. Cycles are those of a device whose tensor cores multiply. Instead of what is 0, an
// A100's: its clock, and the bytes that memory moves in a cycle for each multiprocessor.
DeviceProperties properties_of(const DeviceFacts& facts);

}  // namespace flopcuda::cuda
