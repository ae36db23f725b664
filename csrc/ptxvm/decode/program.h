// A kernel made ready to run: the entry and every function it can reach, each as segments of decoded instructions over
// register slots. Plain data; execute/ binds a handler to every instruction, observe/ reads the descriptions.
#pragma once

#include <cstdint>
#include <deque>
#include <new>
#include <string>
#include <vector>

#include "types.h"

namespace flopcuda::ptxvm {

class Warp;
struct Instruction;
using Handler = void (*)(Warp&, const Instruction&);

// Where an operand lies: a byte offset, whose two lowest bits name what it is relative to. A register is kLanes
// consecutive values of its width, a predicate one 32-bit lane mask.
using Ref = int32_t;
inline constexpr Ref kNoRef = -1;
enum RefBase : int { kFrameBase = 0, kConstantBase = 1, kSpecialBase = 2 };

enum class Op : uint16_t {
  kNone,
  // arithmetic, one result per lane
  kMov,
  kAdd,
  kSub,
  kMulLo,
  kMulHi,
  kMulWide,
  kMadLo,
  kMadHi,
  kMadWide,
  kMul24Lo,
  kMul24Hi,
  kMad24Lo,
  kMad24Hi,
  kSad,
  kDiv,
  kRem,
  kAbs,
  kNeg,
  kMin,
  kMax,
  kMin3,
  kMax3,
  kPopc,
  kClz,
  kBfind,
  kBfindShift,
  kFns,
  kBrev,
  kBfe,
  kBfi,
  kSzext,
  kBmsk,
  kAbsDiff2,
  kAbsDiff4,
  kDp4a,
  kDp2a,
  kAnd,
  kOr,
  kXor,
  kNot,
  kCnot,
  kLop3,
  kFunnelLeft,
  kFunnelRight,
  kShl,
  kShr,
  kPrmt,
  kSelp,
  kSlct,
  kAddCarry,
  kSubCarry,
  kMadLoCarry,
  kMadHiCarry,
  kFma,
  kRcp,
  kSqrt,
  kRsqrt,
  kSin,
  kCos,
  kLg2,
  kEx2,
  kTanh,
  kCopysign,
  kTestp,
  kSet,
  kSetp,
  kSelpPred,
  kConvert,
  kConvertPack2,
  kPack,
  kUnpack,
  kLogicPred,
  kNotPred,
  kMovPred,
  kLop3Pred,
  kLocalAddress,
  kToWindow,
  kFromWindow,
  kIsSpace,
  kReadClock,
  kActiveMask,
  // memory
  kLoad,
  kStore,
  kLoadParam,
  kAtom,
  kRed,
  kCpAsync,
  kCpAsyncCommit,
  kCpAsyncWait,
  kFence,
  kPrefetch,
  // warp-wide
  kShfl,
  kVote,
  kMatch,
  kRedux,
  kElect,
  kLdmatrix,
  kStmatrix,
  kMovmatrix,
  kMma,
  kWmmaLoad,
  kWmmaStore,
  // the machine's own functions
  kPrintf,
  kAssertFail,
  kMalloc,
  kFree,
  // control
  kBranch,
  kBranchIndexed,
  kCall,
  kCallIndirect,
  kReturn,
  kExit,
  kBarrier,
  kWarpBarrier,
  kClusterArrive,
  kClusterWait,
  kYield,
  kTrap,
  kCount,
};

// Properties of an operation that select its handler, besides its type.
enum Variant : uint8_t {
  kFtz = 1,
  kSat = 2,
  kDirected = 4,  // a rounding mode other than to nearest even; which one stands in u[0]
  kRelu = 8,
  kPropagateNan = 16,
  kXorSign = 32,
  kApprox = 64,
};

// What the few instructions with many operands need beyond Instruction.
struct Extra {
  std::vector<Ref> dst;
  std::vector<Ref> src;
  std::vector<int64_t> values;
};

struct alignas(64) Instruction {
  Handler full = nullptr;    // every lane of the warp is active
  Handler masked = nullptr;  // only the lanes of the warp's mask
  Ref dst = kNoRef, a = kNoRef, b = kNoRef, c = kNoRef;
  Ref guard = kNoRef;  // execute where this predicate, xor-ed with guard_negated, is set
  uint32_t index = 0;  // into Program::info and the counters
  uint8_t u[4] = {};   // small properties, by operation
  uint8_t guard_negated = 0;
  uint8_t variant = 0;
  Op op = Op::kNone;
  int64_t offset = 0;
  const Extra* extra = nullptr;
};
static_assert(sizeof(Instruction) == 64);

// What selects the handler of a straight instruction.
struct HandlerKey {
  Op op = Op::kNone;
  Type type = Type::kNone;
  Type second = Type::kNone;  // the source of cvt, the result of set
  uint8_t variant = 0;
};

// What an instruction is, for messages and reports.
struct InstructionInfo {
  HandlerKey key;
  int line = 0;         // in the PTX text
  int source_file = 0;  // from .loc; 0 without
  int source_line = 0;
  uint32_t function = 0;
  std::string name;  // with modifiers: fma.rn.f32
  Space space = Space::kGeneric;
  Type fma_type = Type::kNone;  // operand type when lanes of this instruction are multiply-adds
  int64_t macs_per_lane = 0;    // multiply-adds per active lane: 1 for fma, m*n*k/32 for mma
};

// A straight run of instructions and the control instruction that ends it, if it is not just followed by the next.
struct Segment {
  uint32_t begin = 0, end = 0;           // straight instructions
  const Instruction* control = nullptr;  // null: fall through
  uint32_t next = 0;                     // where lanes go that do not jump; kNoSegment at the end
  uint32_t target = 0;                   // of a branch
  uint32_t count = 0;                    // id in the counters
  std::vector<uint32_t> targets;         // of an indexed branch
};
inline constexpr uint32_t kNoSegment = 0xffffffffu;

struct ParameterSlot {
  int64_t offset = 0, size = 0, align = 1;
  std::string name;
  Type type = Type::kNone;
  bool is_array = false;
};

// Where the arguments of a call lie in the caller's and the callee's frame of local memory.
struct CallSite {
  uint32_t callee = 0;  // of a direct call
  std::vector<int64_t> argument_from, return_to;
  std::vector<ParameterSlot> arguments, returns;
};

// The rows of one width in a frame; size 0 are predicates.
struct RegisterArea {
  int size = 0;
  int64_t begin = 0, end = 0;
};

struct Function {
  std::string name;
  std::vector<Instruction> instructions;
  std::vector<Segment> segments;  // ordered so that a lane which waits at a later one is overtaken by the others
  std::deque<Instruction> controls;
  std::deque<Extra> extras;
  std::vector<CallSite> calls;
  int64_t frame_bytes = 0;  // registers of one warp
  std::vector<RegisterArea> areas;
  int64_t local_bytes = 0;  // of one thread: parameters, depot, call arguments
  int64_t parameter_bytes = 0;
  std::vector<ParameterSlot> parameters, returns;
  int registers = 0;  // declared and used in the text
  uint32_t module_index = 0;
};

// A special register that the text uses: an area of Program::special_bytes holds one row of lanes for each.
enum class Special : uint8_t {
  kTidX,
  kTidY,
  kTidZ,
  kNtidX,
  kNtidY,
  kNtidZ,
  kCtaidX,
  kCtaidY,
  kCtaidZ,
  kNctaidX,
  kNctaidY,
  kNctaidZ,
  kLaneid,
  kWarpid,
  kNwarpid,
  kSmid,
  kNsmid,
  kGridid,
  kLanemaskEq,
  kLanemaskLe,
  kLanemaskLt,
  kLanemaskGe,
  kLanemaskGt,
  kDynamicSharedBytes,
  kTotalSharedBytes,
  kReservedSharedBegin,
  kReservedSharedSecond,
  kReservedSharedEnd,
  kReservedSharedBytes,
  kGridWorkspaceHigh,
  kGridWorkspaceLow,
  kZero,
  kOne,
  kCount,
};

// What %gridid reads.
inline constexpr uint64_t kGridId = 1;

// Rows are read with aligned vector instructions.
template <class T>
struct RowAllocator {
  using value_type = T;
  RowAllocator() = default;
  template <class U>
  RowAllocator(const RowAllocator<U>&) {}
  T* allocate(size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t{64})); }
  void deallocate(T* memory, size_t) { ::operator delete(memory, std::align_val_t{64}); }
  bool operator==(const RowAllocator&) const { return true; }
  bool operator!=(const RowAllocator&) const { return false; }
};

struct Program {
  std::string name;
  std::vector<Function> functions;  // the entry first
  std::vector<InstructionInfo> info;
  std::vector<Handler> bodies;  // by index: the masked handler, which a guarded instruction runs under its guard
  std::vector<uint8_t, RowAllocator<uint8_t>> constants;  // rows of kLanes equal values
  int64_t static_shared_bytes = 0;
  int64_t dynamic_shared_offset = 0;
  bool uses_reserved_shared = false;  // reads where the shared memory of the system lies
  int64_t parameter_bytes = 0;
  int64_t max_threads = 0;
  bool has_indirect_calls = false;
  std::vector<int64_t> function_of_module_index;  // -1: not part of this program
  uint32_t segment_count = 0;
};

// Windows of the generic address space. Global and constant memory are at their host addresses, which never reach them.
inline constexpr uint64_t kSharedWindow = uint64_t{1} << 60;
inline constexpr uint64_t kLocalWindow = uint64_t{2} << 60;
inline constexpr uint64_t kParamWindow = uint64_t{3} << 60;
inline constexpr uint64_t kFunctionWindow = uint64_t{4} << 60;  // code addresses: window + 16 * index in the module
inline constexpr uint64_t kWindowMask = uint64_t{15} << 60;

}  // namespace flopcuda::ptxvm
