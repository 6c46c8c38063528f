import type { AttentionWeights } from '../tensor/blocks.js';

/**
 * Which form of MLA's attention costs less for the new tokens of a sequence. Floating-point operations of one layer, for n new
 * tokens behind p cached ones, of which each sees m = p + (n + 1)/2 on average, with H heads:
 *
 *     absorbed  n·H·2·d_c·(d_h + d_v)  +  n·m·H·2·(2·d_c + d_h^R)          W^UK and W^UV on each new token, then on latents
 *     expanded  (p + n)·H·2·d_c·(d_h + d_v)  +  n·m·H·2·(d_h + d_h^R + d_v)   W^UK and W^UV on each token, then on heads
 *
 * so that expanding p cached tokens has to pay in the narrower products. A few tokens, which is what decoding and verification of
 * drafts compute, take the absorbed form always: it reads the least, and a row is the same in every batch.
 */
export type AttentionForm = 'absorbed' | 'expanded';

/** Up to this many new tokens behind others are decoding. */
export const DECODE_TOKENS = 8;

/** Keys and values of one sequence and layer that may exist at a time, bytes. */
const MOST_EXPANDED_BYTES = 2 ** 28;

type Sizes = Pick<AttentionWeights, 'heads' | 'nope' | 'rope' | 'v' | 'latent'>;

/** @param cached p @param added n */
export function attentionForm(sizes: Sizes, cached: number, added: number): AttentionForm {
  if (added === 1 || (cached > 0 && added <= DECODE_TOKENS)) return 'absorbed';
  if (expandedBytes(sizes, cached + added) > MOST_EXPANDED_BYTES) return 'absorbed';
  const { absorbed, expanded } = attentionFlops(sizes, cached, added);
  return expanded < absorbed ? 'expanded' : 'absorbed';
}

/** Operations of both forms. */
export function attentionFlops(
  { heads, nope, rope, v, latent }: Sizes,
  cached: number,
  added: number,
): Record<AttentionForm, number> {
  const up = heads * 2 * latent * (nope + v);
  const pairs = added * (cached + (added + 1) / 2) * heads * 2;
  return {
    absorbed: added * up + pairs * (2 * latent + rope),
    expanded: (cached + added) * up + pairs * (nope + rope + v),
  };
}

const expandedBytes = ({ heads, nope, v }: Sizes, tokens: number): number => tokens * heads * (nope + v) * 2;
