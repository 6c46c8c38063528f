// What one step of attention on latents multiplies: scores = keys · queriesᵀ, softmax weights, sums = weights · keys[:latent].
//
// Legend: a column is one head of one row; kColumns columns make a group, the unit of all products; C is the type that is
// multiplied: float for an FP32 cache, else bf16.
#pragma once

#include "attention.h"

namespace fathom {
namespace FATHOM_ISA_NS {

constexpr int64_t kStepKeys = 128, kColumns = 16;
/// Columns of the latent that sums are computed for at a time: four panels, one accumulator tile each.
constexpr int64_t kValueColumns = 64;

// ---- Products -------------------------------------------------------------------------------------------------------

/// kStepKeys keys in rows of 16 keys: pointers, and elements from key to key.
template <class C>
struct KeyRows {
  const C *latent[kStepKeys / 16], *rope[kStepKeys / 16];
  int64_t latent_stride, rope_stride;
};

/// Sizes of a contraction as stored: bf16 is filled up to 32.
template <class C>
constexpr int64_t filled(int64_t width) {
  return std::is_same_v<C, bf16> ? round_up(width, 32) : width;
}

/// Scores [16, kColumns] of 16 keys.
template <class C>
void score_tile(const C* a, int64_t stride, int64_t depth, const C* query, float* scores, bool accumulate) {
  const C* const panel[1] = {query};
  multiply_half<1>(a, stride, int64_t{32}, int64_t{16}, panel, steps_of<C>(depth), scores, kColumns, accumulate);
}

/// scores [kStepKeys, kColumns] of the first `tiles` times 16 keys; query: packed [latent filled | rope filled].
template <class C>
void score_keys(const KeyRows<C>& keys, int64_t tiles, int64_t latent, int64_t rope, const C* query, float* scores) {
#if defined(FATHOM_AMX)
  if constexpr (std::is_same_v<C, bf16>) {
    for (int64_t t = 0; t < tiles; t += 4, scores += 4 * 16 * kColumns) {
      FATHOM_TILE_ZERO(0);
      FATHOM_TILE_ZERO(1);
      FATHOM_TILE_ZERO(2);
      FATHOM_TILE_ZERO(3);
      const bf16* q = query;
      const auto products = [&](const bf16* const* rows, int64_t stride, int64_t depth) {
        for (int64_t k = 0; k < depth; k += 32, q += 512) {
          FATHOM_TILE_LOAD(4, q, 64);
          FATHOM_TILE_LOAD(5, rows[0] + k, stride * 2);
          FATHOM_TILE_DP(0, 5, 4);
          FATHOM_TILE_LOAD(6, rows[1] + k, stride * 2);
          FATHOM_TILE_DP(1, 6, 4);
          FATHOM_TILE_LOAD(7, rows[2] + k, stride * 2);
          FATHOM_TILE_DP(2, 7, 4);
          FATHOM_TILE_LOAD(5, rows[3] + k, stride * 2);
          FATHOM_TILE_DP(3, 5, 4);
        }
      };
      FATHOM_TILE_BARRIER();
      products(keys.latent + t, keys.latent_stride, filled<bf16>(latent));
      products(keys.rope + t, keys.rope_stride, filled<bf16>(rope));
      FATHOM_TILE_STORE(0, scores, 64);
      FATHOM_TILE_STORE(1, scores + 256, 64);
      FATHOM_TILE_STORE(2, scores + 512, 64);
      FATHOM_TILE_STORE(3, scores + 768, 64);
    }
    return;
  }
#endif
  const C* rope_query = query + filled<C>(latent) * kColumns;
  for (int64_t t = 0; t < tiles; ++t, scores += 16 * kColumns) {
    score_tile(keys.latent[t], keys.latent_stride, filled<C>(latent), query, scores, false);
    if (rope > 0) score_tile(keys.rope[t], keys.rope_stride, filled<C>(rope), rope_query, scores, true);
  }
}

/// Elements of one packed panel of values, 16 columns of kStepKeys keys. A line more than it takes: panels a multiple of
/// 4 KB apart would share their cache sets.
template <class C>
constexpr int64_t value_panel() {
  return kStepKeys * 16 + 64 / static_cast<int64_t>(sizeof(C));
}

#if defined(FATHOM_AMX)
/// One to four panels of sums [kColumns, 16] += weights [kColumns, keys] · values.
template <int P>
void add_panels(const bf16* weights, const bf16* values, int64_t keys, float* sums) {
  constexpr int64_t next = value_panel<bf16>();
  FATHOM_TILE_BARRIER();
  FATHOM_TILE_LOAD(0, sums, 64);
  if constexpr (P > 1) FATHOM_TILE_LOAD(1, sums + 256, 64);
  if constexpr (P > 2) FATHOM_TILE_LOAD(2, sums + 512, 64);
  if constexpr (P > 3) FATHOM_TILE_LOAD(3, sums + 768, 64);
  for (int64_t k = 0; k < keys; k += 32, values += 512) {
    FATHOM_TILE_LOAD(4, weights + k, kStepKeys * 2);
    FATHOM_TILE_LOAD(5, values, 64);
    FATHOM_TILE_DP(0, 4, 5);
    if constexpr (P > 1) {
      FATHOM_TILE_LOAD(6, values + next, 64);
      FATHOM_TILE_DP(1, 4, 6);
    }
    if constexpr (P > 2) {
      FATHOM_TILE_LOAD(7, values + 2 * next, 64);
      FATHOM_TILE_DP(2, 4, 7);
    }
    if constexpr (P > 3) {
      FATHOM_TILE_LOAD(5, values + 3 * next, 64);
      FATHOM_TILE_DP(3, 4, 5);
    }
  }
  FATHOM_TILE_STORE(0, sums, 64);
  if constexpr (P > 1) FATHOM_TILE_STORE(1, sums + 256, 64);
  if constexpr (P > 2) FATHOM_TILE_STORE(2, sums + 512, 64);
  if constexpr (P > 3) FATHOM_TILE_STORE(3, sums + 768, 64);
}
#endif

/// `panels` <= 4 panels of sums += weights [kColumns, kStepKeys] · packed values of the first `keys` keys, a multiple of 32.
template <class C>
void add_values(const C* weights, const C* values, int64_t keys, int64_t panels, float* sums) {
#if defined(FATHOM_AMX)
  if constexpr (std::is_same_v<C, bf16>) {
    if (panels == 4) return add_panels<4>(weights, values, keys, sums);
    if (panels == 3) return add_panels<3>(weights, values, keys, sums);
    if (panels == 2) return add_panels<2>(weights, values, keys, sums);
    return add_panels<1>(weights, values, keys, sums);
  }
#endif
  for (int64_t p = 0; p < panels; ++p, values += value_panel<C>(), sums += 256) {
    const C* const panel[1] = {values};
    multiply_half<1>(weights, kStepKeys, int64_t{32}, kColumns, panel, steps_of<C>(keys), sums, int64_t{16}, true);
  }
}

/// Packs `width` <= kValueColumns columns from `column` of `keys` keys (a multiple of 32).
inline void pack_values(float* dst, const KeyRows<float>& rows, int64_t keys, int64_t column, int64_t width) {
  for (int64_t j = 0; j < width; j += 16, dst += value_panel<float>()) {
    for (int64_t k = 0; k < keys; ++k) {
      store(dst + k * 16, load(rows.latent[k / 16] + k % 16 * rows.latent_stride + column + j, width - j));
    }
  }
}
inline void pack_values(bf16* dst, const KeyRows<bf16>& rows, int64_t keys, int64_t column, int64_t width) {
  int64_t j = 0;
#if defined(__AVX512BW__)
  for (; j + 32 <= width; j += 32, dst += 2 * value_panel<bf16>()) {
    for (int64_t k = 0; k < keys; k += 2) {
      const bf16* even = rows.latent[k / 16] + k % 16 * rows.latent_stride + column + j;
      const __m512i a = _mm512_loadu_si512(even), b = _mm512_loadu_si512(even + rows.latent_stride);
      _mm512_storeu_si512(dst + k * 16, _mm512_unpacklo_epi16(a, b));
      _mm512_storeu_si512(dst + value_panel<bf16>() + k * 16, _mm512_unpackhi_epi16(a, b));
    }
  }
#endif
  for (; j < width; j += 16, dst += value_panel<bf16>()) {
    for (int64_t k = 0; k < keys; k += 2) {
      const bf16* even = rows.latent[k / 16] + k % 16 * rows.latent_stride + column + j;
      store(reinterpret_cast<int32_t*>(dst + k * 16), row_pairs(even, even + rows.latent_stride, width - j));
    }
  }
}

/// Writes o [latent] from the values of its panels, panel(i) for columns 16 i …. C is the type that was multiplied.
template <class C, class Q, class Panel>
void write_panels(Q* o, int64_t latent, const Panel& panel) {
  int64_t i = 0;
#if defined(__AVX512BW__)
  // Two panels of BF16 products hold the lanes of 32 columns in turns, as unpacking leaves them (pack_values).
  if constexpr (std::is_same_v<C, bf16>) {
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    for (; i + 32 <= latent; i += 32) {
      const f32x16 a = panel(i / 16), b = panel(i / 16 + 1);
      const auto turned = [&](const __m512i& order) {
        return f32x16{(nf32)_mm512_castpd_ps(_mm512_permutex2var_pd((__m512d)a.p[0], order, (__m512d)b.p[0]))};
      };
      store_pair(o + i, turned(first), turned(second));
    }
  }
#endif
  each16(latent - i, [&](int64_t j, auto n) { store(o + i + j, panel((i + j) / 16), n); });
}

// ---- Softmax: lanes are columns -----------------------------------------------------------------------------------

/// Raises top to the largest of `keys` scores and tells what earlier sums are multiplied by.
FATHOM_INLINE f32x16 raise_top(const float* scores, int64_t keys, float c, float* top) {
  f32x16 a = load(scores), b = load(scores + kColumns);
  for (int64_t k = 2; k < keys; k += 2) {
    a = max(load(scores + k * kColumns), a);
    b = max(load(scores + (k + 1) * kColumns), b);
  }
  const f32x16 before = load(top), now = max(max(a, max(b, broadcast(kMasked))) * c, before);
  store(top, now);
  return exp2<float>(before - now);
}

/// Scores of keys from `begin` on that a column does not see (its limit is `visible`) become −∞: their weight is 0 even where
/// a column sees none of a part, and top stays finite.
FATHOM_INLINE void mask_scores(float* scores, int64_t keys, int64_t begin, i32x16 visible) {
  const f32x16 none = broadcast(-std::numeric_limits<float>::infinity());
  for (int64_t k = 0; k < keys; ++k) {
    float* row = scores + k * kColumns;
    store(row, select(broadcast_int(static_cast<int32_t>(begin + k)) < visible, load(row), none));
  }
}

/// Sixteen pairs of weights as BF16, `low` in the lower halves; subnormals may become 0.
FATHOM_INLINE i32x16 weight_pairs(f32x16 low, f32x16 high) {
#if defined(__AVX512BF16__)
  // Halves of one conversion side by side: high's sixteen values shifted over low's.
  const __m512i a = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)low.p[0]));
  const __m512i b = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)high.p[0]));
  return {(ni32)_mm512_or_si512(a, _mm512_slli_epi32(b, 16))};
#else
  return bf16_pairs(low, high);
#endif
}

/// weights [kColumns, kStepKeys] = 2^(c · score − top), rounded to C, for `keys` keys (a multiple of 32), added up in mass
/// after it is multiplied by `shrink`.
template <class C>
void weigh_keys(const float* scores, int64_t keys, float c, const float* top, f32x16 shrink, float* mass, C* weights) {
  const f32x16 shift = -load(top), factor = broadcast(c);
  f32x16 even = load(mass) * shrink, odd = zero();
  constexpr int64_t rows = 16 * static_cast<int64_t>(4 / sizeof(C));  // keys that make 16 lanes of 32 bits a column
  for (int64_t k = 0; k < keys; k += rows) {
    i32x16 tile[16];
    for (int i = 0; i < 16; ++i) {
      if constexpr (std::is_same_v<C, bf16>) {
        const float* at = scores + (k + 2 * i) * kColumns;
        const f32x16 a = exp2<bf16>(fma(load(at), factor, shift)), b = exp2<bf16>(fma(load(at + kColumns), factor, shift));
        even += a;
        odd += b;
        tile[i] = weight_pairs(a, b);
      } else {
        const f32x16 a = exp2<float>(fma(load(scores + (k + i) * kColumns), factor, shift));
        even += a;
        tile[i] = bits_of(a);
      }
    }
    transpose16(tile);
    for (int64_t i = 0; i < 16; ++i) store(reinterpret_cast<int32_t*>(weights + i * kStepKeys + k), tile[i]);
  }
  store(mass, even + odd);
}

/// Multiplies the sums of each column by its factor.
inline void shrink_sums(float* sums, int64_t latent, f32x16 shrink) {
  float factor[16];
  store(factor, shrink);
  for (int64_t column = 0; column < kColumns; ++column) {
    if (factor[column] == 1.0f) continue;
    float* row = sums + column * 16;
    for (int64_t j = 0; j < latent; j += 16, row += 256) store(row, load(row) * factor[column]);
  }
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
