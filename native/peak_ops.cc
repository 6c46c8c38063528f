// Ceilings of this machine, measured: what the kernels' speed is a share of.
#include <algorithm>
#include <chrono>
#include <vector>

#include "gemm.h"
#include "kernels.h"
#include "memory.h"
#include "pool.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

/// Rounds of a measurement, a few milliseconds each; the best counts, as a ceiling is what the machine can do undisturbed.
constexpr int kRounds = 15;
/// Accumulators, enough to cover the latency of the multiplier: 4 cycles x 2 units for FMA.
constexpr int kChains = 12;
/// Floats of a memory measurement, per call: 512 MB, beyond the caches of large servers (480 MB are shared on the one measured).
constexpr int64_t kMemoryFloats = int64_t{1} << 27;

/// Keeps a result alive without storing it.
FATHOM_INLINE void keep(f32x16& value) {
  for (int part = 0; part < kParts; ++part) asm volatile("" : "+m"(value.p[part]));
}

/// Units of work a second of `task`, which does `units` of them, when every thread runs it once.
template <class Task>
double best_rate(double units, const Task& task) {
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    parallel_for(threads(), task);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, units * threads() / seconds);
  }
  return best;
}

/// FP32 fused multiply-adds, in FLOP/s.
double peak_fma32() {
  constexpr int64_t turns = 1 << 18;
  return best_rate(turns * kChains * 16 * 2.0, [](int64_t) {
    f32x16 sum[kChains];
    for (auto& s : sum) s = broadcast(1.0f);
    f32x16 a = broadcast(0.5f), b = broadcast(0.25f);
    keep(a);
    keep(b);
    for (int64_t i = 0; i < turns; ++i) {
#pragma GCC unroll 12
      for (int c = 0; c < kChains; ++c) sum[c] = fma(sum[c], a, b);
    }
    for (auto& s : sum) keep(s);
  });
}

/// BF16 products without AMX: VDPBF16PS, or the widened FMA that replaces it. In FLOP/s.
double peak_dot_bf16() {
#if defined(__AVX512BF16__)
  constexpr int64_t turns = 1 << 18;
  return best_rate(turns * kChains * 64.0, [](int64_t) {
    f32x16 sum[kChains], bits = broadcast(0.5f);
    for (auto& s : sum) s = zero();
    keep(bits);
    __m512bh pairs;
    std::memcpy(&pairs, &bits, 64);
    for (int64_t i = 0; i < turns; ++i) {
#pragma GCC unroll 12
      for (int c = 0; c < kChains; ++c) sum[c].p[0] = (nf32)_mm512_dpbf16_ps((__m512)sum[c].p[0], pairs, pairs);
    }
    for (auto& s : sum) keep(s);
  });
#else
  return peak_fma32();
#endif
}

/// BF16 products through AMX, in FLOP/s; 0 at other levels.
double peak_amx_bf16() {
#if defined(FATHOM_AMX)
  constexpr int64_t turns = 1 << 15;
  return best_rate(turns * 4 * 16 * 16 * 32 * 2.0, [](int64_t) {
    ensure_tiles();
    FATHOM_TILE_ZERO(4);
    FATHOM_TILE_ZERO(5);
    FATHOM_TILE_ZERO(6);
    FATHOM_TILE_ZERO(7);
    for (int64_t i = 0; i < turns; ++i) {
      FATHOM_TILE_DP(0, 4, 6);
      FATHOM_TILE_DP(1, 4, 7);
      FATHOM_TILE_DP(2, 5, 6);
      FATHOM_TILE_DP(3, 5, 7);
    }
  });
#else
  return 0;
#endif
}

/// Streams that a thread reads at once: one alone keeps the prefetchers from filling the memory's queues.
constexpr int kStreams = 4;

/// Bytes read a second where `floats` are read over and over, `passes` times in all, each thread reading a part in `kStreams` streams.
double read_rate(const float* data, int64_t floats, int64_t passes) {
  const int64_t stream = floats / threads() / kStreams / 64 * 64;
  return best_rate(static_cast<double>(stream) * kStreams * 4 * passes, [&](int64_t index) {
    f32x16 sum[kStreams] = {zero(), zero(), zero(), zero()};
    const float* from = data + index * kStreams * stream;
    for (int64_t pass = 0; pass < passes; ++pass) {
      for (int64_t i = 0; i < stream; i += 32) {
#pragma GCC unroll 4
        for (int s = 0; s < kStreams; ++s) sum[s] += load(from + s * stream + i) + load(from + s * stream + i + 16);
      }
    }
    for (auto& s : sum) keep(s);
  });
}

/// Bytes read plus bytes written a second by a copy (the read for ownership is not counted).
double peak_copy(float* data) {
  const int64_t stream = kMemoryFloats / 2 / threads() / kStreams / 64 * 64;
  return best_rate(static_cast<double>(stream) * kStreams * 8, [&](int64_t index) {
    const float* from = data + index * kStreams * stream;
    float* to = data + kMemoryFloats / 2 + index * kStreams * stream;
    for (int64_t i = 0; i < stream; i += 32) {
#pragma GCC unroll 4
      for (int64_t at = i; at < i + kStreams * stream; at += stream) {
        store(to + at, load(from + at));
        store(to + at + 16, load(from + at + 16));
      }
    }
  });
}

/// Runs `measure` on memory that all threads have touched.
template <class Measure>
double with_memory(int64_t floats, const Measure& measure) {
  auto* data = static_cast<float*>(aligned_allocate(floats * 4));
  parallel_ranges(floats, 1 << 20, [&](int64_t begin, int64_t end) { std::fill(data + begin, data + end, 1.0f); });
  const double rate = measure(data);
  aligned_free(data);
  return rate;
}

/// Bytes that a measurement of small memory reads at least, so that its start does not count.
constexpr int64_t kLeastRead = int64_t{1} << 26;

/// readRate(bytes): bytes/s of reading so much memory over and over, which is what a cache of that size gives.
double read_rate_of(double bytes) {
  const auto floats = static_cast<int64_t>(bytes / 4);
  if (floats < threads() * kStreams * 64) fail("readRate", "needs at least 1 KB for each thread");
  return with_memory(floats, [&](float* data) { return read_rate(data, floats, std::max<int64_t>(1, kLeastRead / 4 / floats)); });
}

/// peak(kind): 'fma32', 'dotbf16', 'amxbf16' in FLOP/s, 'read', 'copy' in bytes/s, with the threads that are set.
double peak(std::string kind) {
  if (kind == "fma32") return peak_fma32();
  if (kind == "dotbf16") return peak_dot_bf16();
  if (kind == "amxbf16") return peak_amx_bf16();
  if (kind == "read") return with_memory(kMemoryFloats, [](float* data) { return read_rate(data, kMemoryFloats, 1); });
  if (kind == "copy") return with_memory(kMemoryFloats, peak_copy);
  fail("peak", "unknown kind \"" + kind + "\", known are fma32, dotbf16, amxbf16, read, copy");
}

}  // namespace

void register_peak(const Exports& exports) {
  bind(exports, "peak", peak);
  bind(exports, "readRate", read_rate_of);
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
