// Handlers: what executes one decoded instruction over the lanes of a warp.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "decode/program.h"
#include "parse/syntax.h"

namespace flopcuda::ptxvm {

struct HandlerPair {
  Handler full = nullptr;    // all lanes are active
  Handler masked = nullptr;  // those of the warp's mask
};

class HandlerTable {
 public:
  void add(HandlerKey key, HandlerPair pair) { table_.insert_or_assign(pack(key), pair); }
  const HandlerPair* find(HandlerKey key) const {
    const auto found = table_.find(pack(key));
    return found == table_.end() ? nullptr : &found->second;
  }

 private:
  static uint64_t pack(HandlerKey key) {
    return static_cast<uint64_t>(key.op) | static_cast<uint64_t>(key.type) << 16 |
           static_cast<uint64_t>(key.second) << 24 | static_cast<uint64_t>(key.variant) << 32;
  }
  std::unordered_map<uint64_t, HandlerPair> table_;
};

// The hot ones, compiled for several instruction sets; each returns false if this build or this processor lacks its
// own.
bool register_core_avx512(HandlerTable& table);
bool register_core_avx2(HandlerTable& table);
void register_core_portable(HandlerTable& table);

void register_float(HandlerTable& table);  // division, roots, functions, directed rounding
void register_half(HandlerTable& table);   // f16, bf16
void register_convert(HandlerTable& table);
void register_atomic(HandlerTable& table);  // atom, red
void register_async_copy(HandlerTable& table);
void register_exchange(HandlerTable& table);  // shfl, vote, match, redux
void register_matrix(HandlerTable& table);    // ldmatrix, mma, wmma
void register_rest(HandlerTable& table);      // fences, clocks, printf

// Which instruction set the hot handlers use: "avx512", "avx2" or "portable".
const char* lane_instruction_set();
// For tests: another one from now on; false if it is not there.
bool set_lane_instruction_set(const char* name);

// Gives every instruction its handlers. Throws PtxError for one that has none.
void bind_handlers(Program& program, const syntax::Module& module);

}  // namespace flopcuda::ptxvm
