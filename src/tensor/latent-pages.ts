import type { CacheFormat } from '../spec/serving.js';
import type { Tensor } from './tensor.js';

/**
 * The latent cache of one decoder layer, in pages: per token RMSNorm(c^KV) and the rotated k^R, all that MLA keeps
 * [V2 §2.1.3]. A slot is a token's place, page · PAGE_TOKENS + offset.
 *
 * A page is three sections, one after the other without gaps, numbers little-endian:
 *
 *     latents [PAGE_TOKENS, latent]   fp32: f32 · bf16: bf16 · fp8: E4M3 codes · logfmt8: codes
 *     scales  [PAGE_TOKENS, tiles]    fp8: E8M0 · logfmt8: f32 min and step [ISCA §3.2] · else nothing
 *     k^R     [PAGE_TOKENS, rope]     fp32: f32, else bf16
 *
 * with tiles = ceil(latent / 128). The scale of an fp8 tile is a power of two, so that its values are BF16 values exactly:
 * the smallest 2^e with absmax ≤ 448 · 2^e, e within −100..119. A tile with NaN or infinity is NaN throughout.
 */
export interface LatentPages {
  readonly format: CacheFormat;
  /** d_c = kv_lora_rank. */
  readonly latent: number;
  /** d_h^R = qk_rope_head_dim. */
  readonly rope: number;
  /** u8 [pages, bytes of a page]. */
  readonly data: Tensor;
}

/** Tokens of a page: what prefix sharing and the kernels deal in. */
export const PAGE_TOKENS = 32;

/** Values that share a scale [TR §3.3.2]. */
export const LATENT_TILE = 128;

/** Least and largest exponent of the scale of an fp8 tile: no value of such a tile leaves the range of normal BF16. */
export const FP8_EXPONENTS = { least: -100, most: 119 } as const;

/** Bytes per value of latents and rotary keys, and per tile of latents. */
const BYTES: Record<CacheFormat, { latent: number; tile: number; rope: number }> = {
  fp32: { latent: 4, tile: 0, rope: 4 },
  bf16: { latent: 2, tile: 0, rope: 2 },
  fp8: { latent: 1, tile: 1, rope: 2 },
  logfmt8: { latent: 1, tile: 8, rope: 2 },
};

/** Bytes from the start of a page to its sections, and of the whole. */
export interface PageLayout {
  tiles: number;
  scales: number;
  kRope: number;
  bytes: number;
}

export function pageLayout({ format, latent, rope }: Omit<LatentPages, 'data'>): PageLayout {
  const size = BYTES[format];
  const tiles = size.tile === 0 ? 0 : Math.ceil(latent / LATENT_TILE);
  const scales = PAGE_TOKENS * latent * size.latent;
  const kRope = scales + PAGE_TOKENS * tiles * size.tile;
  return { tiles, scales, kRope, bytes: kRope + PAGE_TOKENS * rope * size.rope };
}

/** Query rows and what they see of the cache. Legend: S sequences, B rows. */
export interface LatentRows {
  /** i32 [S+1]: rows of each sequence. */
  bounds: Tensor;
  /** i32 [S]: tokens before a sequence's first row; its row i sees the `lengths` + i + 1 first tokens. */
  lengths: Tensor;
  /** i32: pages of the sequences, in order. */
  pages: Tensor;
  /** i32 [S+1]: pages of each sequence in `pages`. */
  pageBounds: Tensor;
}
