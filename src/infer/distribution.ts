import type { Random } from '../numerics/random.js';

/**
 * Probabilities of the next token, not normalised: those of the tokens `ids`, or of the whole vocabulary where `ids` is
 * absent. Legend: V vocabulary, n tokens kept.
 */
export interface Distribution {
  /** i32 [n], ascending; absent: 0..V−1. */
  ids: Int32Array | undefined;
  /** f32 [n or V], ≥ 0. */
  weights: Float32Array;
  /** Their sum, added in order. */
  total: number;
}

/** A copy in memory of its own. */
export const keep = ({ ids, weights, total }: Distribution): Distribution => ({
  ids: ids?.slice(),
  weights: weights.slice(),
  total,
});

export function sum(weights: Float32Array): number {
  let total = 0;
  for (let i = 0; i < weights.length; i++) total += weights[i]!;
  return total;
}

/** A token with a probability in proportion to its weight. */
export function draw({ ids, weights, total }: Distribution, random: Random): number {
  let left = random.uniform() * total;
  let last = 0;
  for (let i = 0; i < weights.length; i++) {
    const weight = weights[i]!;
    left -= weight;
    if (left < 0) return ids ? ids[i]! : i;
    if (weight > 0) last = i;
  }
  // Rounding: the last token that can be drawn.
  return ids ? ids[last]! : last;
}

function probability({ ids, weights, total }: Distribution, token: number): number {
  const at = ids ? ids.indexOf(token) : token;
  return at < 0 ? 0 : weights[at]! / total;
}

/** A token of the model's distribution, and whether it is the drafted one. */
export interface Verified {
  token: number;
  accepted: boolean;
}

/**
 * Speculative sampling [arXiv 2211.17192, algorithm 1]: a token drawn from `q` is accepted with probability
 * min(1, p/q), else one is drawn from what p has above q, (p − q)⁺. The result has exactly the distribution p.
 * @param p overwritten
 * @param scratch f32 [V] of zeros, left as zeros
 */
export function verify(
  drafted: number,
  p: Distribution,
  q: Distribution,
  random: Random,
  scratch: Float32Array,
): Verified {
  if (random.uniform() * probability(q, drafted) < probability(p, drafted)) {
    return { token: drafted, accepted: true };
  }
  subtract(p, q, scratch);
  return { token: draw(p, random), accepted: false };
}

/** p := (p − q)⁺, both as probabilities; p itself where rounding leaves nothing. */
function subtract(p: Distribution, q: Distribution, scratch: Float32Array): void {
  const scale = p.total / q.total;
  const rest = new Float32Array(p.weights.length);
  const of = q.ids ? scattered(q.ids, q.weights, scratch) : q.weights;
  for (let i = 0; i < rest.length; i++) {
    const token = p.ids ? p.ids[i]! : i;
    rest[i] = Math.max(0, p.weights[i]! - of[token]! * scale);
  }
  if (q.ids) for (const id of q.ids) scratch[id] = 0;
  const total = sum(rest);
  if (total === 0) return;
  p.weights = rest;
  p.total = total;
}

function scattered(ids: Int32Array, weights: Float32Array, into: Float32Array): Float32Array {
  for (let i = 0; i < ids.length; i++) into[ids[i]!] = weights[i]!;
  return into;
}
