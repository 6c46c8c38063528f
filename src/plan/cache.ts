import type { CacheFormat } from '../spec/serving.js';
import type { ModelShape } from '../spec/shape.js';

/**
 * Values of one token that one layer keeps for later tokens: MLA its latent and the rotary key, d_c + d_h^R [V2 §2.1.3]; the
 * others keys and values of every key-value head.
 */
export function cacheValuesPerLayer({ attention: a }: ModelShape): number {
  return a.kind === 'mla' ? a.latent + a.ropeDepth : a.keyValueHeads * (a.keyDepth + a.valueDepth);
}

/** Bytes of one token in the cache of all decoder layers [ISCA table 1, at two bytes a value]. */
export const cacheBytesPerToken = (shape: ModelShape, bytesPerValue = 2): number =>
  cacheValuesPerLayer(shape) * shape.layers * bytesPerValue;

/** Bytes of a value of c^KV, of the scale of a tile of 128 of them, and of a value of k^R, which stays wide. */
const LATENT_BYTES: Record<CacheFormat, { latent: number; scale: number; rope: number }> = {
  fp32: { latent: 4, scale: 0, rope: 4 },
  bf16: { latent: 2, scale: 0, rope: 2 },
  // E4M3 with an exponent per tile.
  fp8: { latent: 1, scale: 1, rope: 2 },
  // min and step of each tile in FP32 [ISCA §3.2].
  logfmt8: { latent: 1, scale: 8, rope: 2 },
};

/**
 * Bytes of one token in the engine's latent cache, all layers together.
 * @param modules MTP modules in use, each with a layer of its own
 */
export function latentCacheBytesPerToken(shape: ModelShape, format: CacheFormat, modules = 0): number {
  const { latent, ropeDepth } = shape.attention;
  const size = LATENT_BYTES[format];
  const layer = latent * size.latent + Math.ceil(latent / 128) * size.scale + ropeDepth * size.rope;
  return layer * (shape.layers + modules);
}
