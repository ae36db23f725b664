// Copies from global to shared memory that go on while a thread computes. No register holds what is on its way
// (cp.async); but GPUs before sm_80 load values to registers, and write them once the thread has computed
// (ScalarCopies).
#pragma once

#include <cstdint>

namespace flopcuda::cuda {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool HAS_ASYNC_COPIES = false;
#else
constexpr bool HAS_ASYNC_COPIES = true;
#endif

// An address in shared memory, as the copies take it.
template <class Scalar>
__device__ inline uint32_t shared_address(const Scalar& scalar) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(&scalar));
}

// Copies one scalar, of 4 or 8 bytes, to an address in shared memory; or, if `missing` has a bit of `mask`, writes a
// zero there and does not read the source. The bits are tested here: ptxas then tests those of several copies by one
// instruction (R2P).
template <class Scalar>
__device__ inline void copy_async(uint32_t destination, const Scalar* source, uint32_t missing, uint32_t mask = ~0u) {
  asm volatile(
      "{ .reg .pred is_missing; .reg .b32 flag; and.b32 flag, %3, %4; setp.ne.u32 is_missing, flag, 0;"
      " cp.async.ca.shared.global [%0], [%1], %2, is_missing; }" ::"r"(destination),
      "l"(source), "n"(sizeof(Scalar)), "r"(missing), "r"(mask)
      : "memory");
}

// Likewise of 16 bytes, at a multiple of 16 on both sides, past the L1 cache.
template <class Scalar>
__device__ inline void copy_chunk_async(uint32_t destination, const Scalar* source, uint32_t missing, uint32_t mask) {
  asm volatile(
      "{ .reg .pred is_missing; .reg .b32 flag; and.b32 flag, %2, %3; setp.ne.u32 is_missing, flag, 0;"
      " cp.async.cg.shared.global [%0], [%1], 16, is_missing; }" ::"r"(destination),
      "l"(source), "r"(missing), "r"(mask)
      : "memory");
}

// The copies that a thread makes of an operand's slice: so many scalars of 4 or 8 bytes. begin() is as copy_async; what
// it copies is in shared memory after finish(), or, on GPUs that have cp.async, when its group is waited for.
template <class Scalar, int SIZE>
class ScalarCopies {
 public:
  __device__ void begin(int i, uint32_t destination, const Scalar* source, uint32_t missing, uint32_t mask = ~0u) {
    if constexpr (HAS_ASYNC_COPIES) {
      copy_async(destination, source, missing, mask);
    } else {
      destinations_[i] = destination;
      values_[i] = (missing & mask) == 0 ? __ldg(source) : Scalar(0);
    }
  }

  __device__ void finish() const {
    if constexpr (!HAS_ASYNC_COPIES) {
#pragma unroll
      for (int i = 0; i < SIZE; ++i) store_shared(destinations_[i], values_[i]);
    }
  }

 private:
  __device__ static void store_shared(uint32_t destination, float value) {
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(destination), "f"(value) : "memory");
  }
  __device__ static void store_shared(uint32_t destination, double value) {
    asm volatile("st.shared.f64 [%0], %1;" ::"r"(destination), "d"(value) : "memory");
  }

  uint32_t destinations_[SIZE];
  Scalar values_[SIZE];
};

// The copies that the thread has begun since the last call are a group.
__device__ inline void end_copy_group() {
  if constexpr (HAS_ASYNC_COPIES) asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until no more than so many of the thread's last groups are on their way.
template <int GROUPS>
__device__ inline void wait_for_copies_but() {
  if constexpr (HAS_ASYNC_COPIES) asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}

// The address of an element. A size that the compiler knows makes it two instructions (LEA, LEA.HI); one that it does
// not, an integer multiply-add (IMAD.WIDE), which leaves more of the issue slots to the kernel's own.
template <class Scalar>
__device__ inline const Scalar* element_at(const Scalar* base, uint32_t index, uint32_t scalar_bytes) {
  uint64_t offset;
  asm("mul.wide.u32 %0, %1, %2;" : "=l"(offset) : "r"(index), "r"(scalar_bytes));
  return reinterpret_cast<const Scalar*>(reinterpret_cast<const char*>(base) + offset);
}

}  // namespace flopcuda::cuda
