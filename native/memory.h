// Aligned memory: tensors that JavaScript owns, and scratch that belongs to a thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fathom {

/// Uninitialised memory, 64-byte aligned; from 2 MB on aligned to 2 MB and advised to use huge pages.
/// @throws std::runtime_error if the system has no such memory
void* aligned_allocate(size_t bytes);
void aligned_free(void* data);

constexpr int kScratchSlots = 16;

/// Scratch memory of the calling thread, 64-byte aligned, uninitialised, kept until the thread ends. Slots are
/// independent; a second request for a slot invalidates the first. Slots 0-7: GEMM family; 8-15: other kernels.
void* scratch_bytes(int slot, size_t bytes);

template <class T>
T* scratch(int slot, int64_t count) {
  return static_cast<T*>(scratch_bytes(slot, static_cast<size_t>(count) * sizeof(T)));
}

}  // namespace fathom
