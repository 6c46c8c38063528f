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
