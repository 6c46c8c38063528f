// Rows that go to memory past the caches: what is not read again soon need not be fetched before it is overwritten, which saves
// one of three ways over the memory's wires, nor push out what is.
#pragma once

#include <algorithm>
#include <cstring>

#include "simd.h"

namespace fathom {
namespace FATHOM_ISA_NS {

constexpr int64_t kLine = 64;

/// Outputs of at least so many bytes go past the caches. Measured with two ranks that exchange: from 8 MB on it pays, below 4 MB the
/// reader still finds the rows in a cache (docs/performance.md, tokens between ranks).
constexpr int64_t kStreamFrom = int64_t{1} << 23;

/// Asks for the lines of `bytes` bytes.
FATHOM_INLINE void fetch(const void* from, int64_t bytes) {
  const auto* at = static_cast<const char*>(from);
  for (int64_t i = 0; i < bytes; i += kLine) __builtin_prefetch(at + i, 0, 2);
}

/// Makes streamed lines visible to whoever sees a later store.
FATHOM_INLINE void finish_streams() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

/// Stores two vectors past the caches; p is where a line begins.
template <class T>
FATHOM_INLINE void stream(T* p, f32x16 a, f32x16 b) {
#if defined(__AVX512F__)
  alignas(64) T line[32];
  store(line, a, b);
  for (size_t at = 0; at < sizeof(line); at += kLine) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(reinterpret_cast<char*>(p) + at), _mm512_load_si512(reinterpret_cast<char*>(line) + at));
  }
#else
  store(p, a, b);
#endif
}

/// Copies past the caches; asks for the lines of `next`, if there is one, as it goes.
inline void stream_copy(void* to, const void* from, int64_t bytes, const void* next = nullptr) {
#if defined(__AVX2__)
  auto* out = static_cast<char*>(to);
  const auto* in = static_cast<const char*>(from);
  const auto* ahead = static_cast<const char*>(next);
  const int64_t head = std::min(bytes, static_cast<int64_t>(-reinterpret_cast<uintptr_t>(out) & (kLine - 1)));
  std::memcpy(out, in, static_cast<size_t>(head));
  int64_t i = head;
  for (; i + kLine <= bytes; i += kLine) {
    if (ahead) __builtin_prefetch(ahead + i, 0, 2);
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(out + i), _mm512_loadu_si512(in + i));
#else
    _mm256_stream_si256(reinterpret_cast<__m256i*>(out + i), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + i)));
    _mm256_stream_si256(reinterpret_cast<__m256i*>(out + i + 32), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + i + 32)));
#endif
  }
  std::memcpy(out + i, in + i, static_cast<size_t>(bytes - i));
#else
  if (next) fetch(next, bytes);
  std::memcpy(to, from, static_cast<size_t>(bytes));
#endif
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
