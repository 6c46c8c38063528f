// Writing and reading the latent cache.
//
// No product may be fused with a sum here: LogFMT promises the reference's bits.
#if defined(__clang__)
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif
#include "latent_pages.h"

#include "kernels.h"
#include "logfmt.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

/// One fp8 tile: the smallest power of two that brings the largest magnitude to 448 or below.
template <class T>
void write_fp8_tile(uint8_t* codes, uint8_t* scale, const T* values, int64_t count) {
  i32x16 most = broadcast_int(0);
  each16(count, [&](int64_t i, auto n) { most = max(most, bits_of(load(values + i, n)) & INT32_MAX); });
  const int32_t largest = hmax(most);
  if (largest >= 0x7f800000) {
    *scale = kMostExponent + 1 + 127;
    std::memset(codes, 0x7f, static_cast<size_t>(count));
    return;
  }
  const float wanted = tile_scale(largest, kE4m3, kScalePow2);
  const int exponent = std::min(std::max(std::ilogb(wanted), kLeastExponent), kMostExponent);
  *scale = static_cast<uint8_t>(exponent + 127);
  const f32x16 inverse = broadcast(std::ldexp(1.0f, -exponent)), top = broadcast(448.0f);
  each16(count, [&](int64_t i, auto n) {
    const f32x16 x = load(values + i, n) * inverse;
    uint8_t sixteen[16];
    narrow8(sixteen, code_byte<kE4m3>(min(abs(x), top), bits_of(x)) & 0xff);
    std::memcpy(codes + i, sixteen, static_cast<size_t>(n));
  });
}

/// One LogFMT-8 tile, whose header lies apart.
template <class T>
void write_logfmt_tile(uint8_t* codes, uint8_t* header, const T* values, int64_t count) {
  alignas(64) T whole[kLogFmtTile];
  alignas(64) uint8_t wire[kLogFmtHeaderBytes + kLogFmtTile];
  for (int64_t i = 0; i < kLogFmtTile; ++i) whole[i] = i < count ? values[i] : T{};
  const T* from[1] = {whole};
  uint8_t* to[1] = {wire};
  if (LogFmtEncoder<T>{8, true}.group(from, to, 1) >= 0) {
    const float not_a_number[2] = {std::numeric_limits<float>::quiet_NaN(), 0};
    std::memcpy(header, not_a_number, sizeof(not_a_number));
    std::memset(codes, 1, static_cast<size_t>(count));
    return;
  }
  std::memcpy(header, wire, kLogFmtHeaderBytes);
  std::memcpy(codes, wire + kLogFmtHeaderBytes, static_cast<size_t>(count));
}

template <class T>
void write(const LatentPages& pages, int64_t slot, const T* latent, const T* k_rope) {
  uint8_t* at = pages.latents(slot);
  if (pages.format == kCacheF32) {
    convert_row(reinterpret_cast<float*>(at), latent, pages.latent);
    return convert_row(reinterpret_cast<float*>(pages.k_rope(slot)), k_rope, pages.rope);
  }
  convert_row(reinterpret_cast<bf16*>(pages.k_rope(slot)), k_rope, pages.rope);
  if (pages.format == kCacheBf16) return convert_row(reinterpret_cast<bf16*>(at), latent, pages.latent);
  uint8_t* scale = pages.scales(slot);
  for (int64_t i = 0; i < pages.latent; i += kTile, scale += pages.tile_bytes()) {
    const int64_t count = std::min(kTile, pages.latent - i);
    if (pages.format == kCacheFp8) write_fp8_tile(at + i, scale, latent + i, count);
    else write_logfmt_tile(at + i, scale, latent + i, count);
  }
}

/// Slots of one task.
constexpr int64_t kTaskSlots = 16;

/// Runs fn(row, slot) for every row.
template <class Fn>
void each_slot(const Span& slots, const LatentPages& pages, const char* op, const Fn& fn) {
  const auto count = static_cast<int64_t>(slots.length);
  const int32_t* slot = slots.as<int32_t>(op, "slots", 0);
  check_indices(slot, count, 0, pages.count * kPageTokens, op, "slots");
  parallel_ranges(count, kTaskSlots, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) fn(i, slot[i]);
  });
}

/// latent [M, d_c], kRope [M, d_h^R] -> slots i32 [M] of pages.
void latent_write(const Span& latent, const Span& k_rope, const Span& slots, const Span& data, int format, int64_t width, int64_t rope) {
  const char* op = "latentWrite";
  const LatentPages pages = latent_pages(data, format, width, rope, op);
  const auto rows = static_cast<int64_t>(slots.length);
  with_float_type(latent, op, "latent", rows * width, [&](auto* c) {
    using T = std::decay_t<decltype(*c)>;
    const T* k = k_rope.as<T>(op, "kRope", rows * rope);
    each_slot(slots, pages, op, [&](int64_t row, int64_t slot) { write_slot(pages, slot, c + row * width, k + row * rope); });
  });
}

/// The inverse.
void latent_read(const Span& data, int format, int64_t width, int64_t rope, const Span& slots, const Span& latent, const Span& k_rope) {
  const char* op = "latentRead";
  const LatentPages pages = latent_pages(data, format, width, rope, op);
  const auto rows = static_cast<int64_t>(slots.length);
  with_float_type(latent, op, "latent", rows * width, [&](auto* c) {
    using T = std::decay_t<decltype(*c)>;
    T* k = k_rope.as<T>(op, "kRope", rows * rope);
    each_slot(slots, pages, op, [&](int64_t row, int64_t slot) {
      read_latent(pages, slot, c + row * width);
      read_rope(pages, slot, k + row * rope);
    });
  });
}

}  // namespace

void write_slot(const LatentPages& pages, int64_t slot, const float* latent, const float* k_rope) { write(pages, slot, latent, k_rope); }
void write_slot(const LatentPages& pages, int64_t slot, const bf16* latent, const bf16* k_rope) { write(pages, slot, latent, k_rope); }

LatentPages latent_pages(const Span& data, int format, int64_t latent, int64_t rope, const char* op) {
  if (format < kCacheF32 || format > kCacheLogFmt8) fail(op, "unknown cache format " + std::to_string(format));
  if (latent < 1 || rope < 0) fail(op, "sizes must be positive");
  LatentPages pages{data.as<uint8_t>(op, "pages", 0), format, latent, rope, 0};
  pages.count = rows_of(data, pages.page_bytes(), op, "pages");
  return pages;
}

void register_latent_pages(const Exports& exports) {
  bind(exports, "latentWrite", latent_write);
  bind(exports, "latentRead", latent_read);
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
