#include "memory.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fathom {

namespace {

constexpr size_t kHuge = size_t{2} << 20;

struct ThreadScratch {
  void* data[kScratchSlots] = {};
  size_t bytes[kScratchSlots] = {};
  ~ThreadScratch() {
    for (void* pointer : data) aligned_free(pointer);
  }
};

thread_local ThreadScratch thread_scratch;

}  // namespace

void* aligned_allocate(size_t bytes) {
  const size_t alignment = bytes >= kHuge ? kHuge : 64;
  const size_t rounded = (bytes + 63) / 64 * 64;
  void* data = nullptr;
  if (posix_memalign(&data, alignment, rounded ? rounded : 64) != 0) {
    throw std::runtime_error("out of memory: " + std::to_string(bytes) + " bytes could not be had");
  }
#if defined(__linux__)
  if (alignment == kHuge) madvise(data, rounded, MADV_HUGEPAGE);
#endif
  return data;
}

void aligned_free(void* data) { std::free(data); }

void* scratch_bytes(int slot, size_t bytes) {
  ThreadScratch& mine = thread_scratch;
  if (mine.bytes[slot] < bytes) {
    aligned_free(mine.data[slot]);
    mine.data[slot] = nullptr;
    mine.bytes[slot] = 0;
    mine.data[slot] = aligned_allocate(bytes);
    mine.bytes[slot] = bytes;
  }
  return mine.data[slot];
}

}  // namespace fathom
