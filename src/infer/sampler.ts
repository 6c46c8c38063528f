import type { Random } from '../numerics/random.js';
import { type Distribution, draw, keep, sum, type Verified, verify } from './distribution.js';
import type { Sampling } from './sampling-options.js';
import { argmax, largest, nucleus } from './select.js';

/** What a sequence has seen, for penalties. */
export interface History {
  prompt: Int32Array;
  /** Occurrences of each token in the continuation. */
  continuation: ReadonlyMap<number, number>;
}

/** A drafted token and the distribution that it was drawn from. */
export interface Draft {
  token: number;
  distribution: Distribution;
}

/** A bit per token, 1 where it is allowed: bit `id % 32` of word `id >> 5`. */
export type TokenMask = Int32Array;

/**
 * From logits to tokens, in passes over the vocabulary that never sort all of it. The order is that of transformers:
 * penalties, bias and mask on the logits, temperature, top-k, top-p of what is left, min-p. Legend: V vocabulary.
 *
 * One sampler serves all sequences; it has memory to work in, and no state.
 */
export class Sampler {
  /** f32 [V]: weights of the distribution that was asked for last. */
  private readonly weights: Float32Array;
  /** f32 [V]. */
  private readonly depths: Float32Array;
  /** f32 [V], zeros between calls. */
  private readonly zeros: Float32Array;

  constructor(readonly vocabulary: number) {
    this.weights = new Float32Array(vocabulary);
    this.depths = new Float32Array(vocabulary);
    this.zeros = new Float32Array(vocabulary);
  }

  /** Draws from logits f32 [V], which are overwritten. */
  sample(
    logits: Float32Array,
    sampling: Sampling,
    history: History,
    random: Random,
    mask?: TokenMask,
  ): number {
    const { temperature } = sampling;
    if (temperature > 0) return draw(this.distribution(logits, sampling, history, mask), random);
    adjust(logits, sampling, history, mask);
    return mostLikely(logits);
  }

  /** Draws a token to be verified, from logits f32 [V] of the MTP module, which are overwritten. */
  draft(logits: Float32Array, sampling: Sampling, history: History, random: Random): Draft {
    const distribution = keep(this.distribution(logits, sampling, history));
    return { token: draw(distribution, random), distribution };
  }

  /** Accepts or replaces a token drawn from `draft`, by logits f32 [V], which are overwritten. */
  verify(
    { token: drafted, distribution: draft }: Draft,
    logits: Float32Array,
    sampling: Sampling,
    history: History,
    random: Random,
  ): Verified {
    if (sampling.temperature === 0) {
      adjust(logits, sampling, history);
      const token = mostLikely(logits);
      return { token, accepted: token === drafted };
    }
    return verify(drafted, this.distribution(logits, sampling, history), draft, random, this.zeros);
  }

  /**
   * The distribution that the options make of logits f32 [V], which are overwritten. In the sampler's memory: valid until
   * the next call.
   */
  distribution(logits: Float32Array, sampling: Sampling, history: History, mask?: TokenMask): Distribution {
    adjust(logits, sampling, history, mask);
    const best = mostLikely(logits);
    if (sampling.temperature === 0) return onlyToken(best);
    const peak = logits[best]!;
    const { topK } = sampling;
    if (topK > 0 && topK < logits.length) return this.fewLargest(logits, peak, sampling);
    return this.ofAll(logits, peak, sampling);
  }

  /** Top-k first: what follows has k tokens to look at. */
  private fewLargest(logits: Float32Array, peak: number, sampling: Sampling): Distribution {
    const ids = largest(logits, sampling.topK);
    const weights = new Float32Array(ids.length);
    for (let i = 0; i < ids.length; i++)
      weights[i] = Math.exp((logits[ids[i]!]! - peak) / sampling.temperature);
    const enough = sampling.topP < 1 ? sum(weights) * sampling.topP : Number.POSITIVE_INFINITY;
    let [kept, mass] = [0, 0];
    while (kept < ids.length && (kept === 0 || mass < enough) && weights[kept]! >= sampling.minP) {
      mass += weights[kept++]!;
    }
    const order = Array.from({ length: kept }, (_, i) => i).sort((a, b) => ids[a]! - ids[b]!);
    return compact(
      order.map((i) => ids[i]!),
      order.map((i) => weights[i]!),
    );
  }

  private ofAll(logits: Float32Array, peak: number, { temperature, topP, minP }: Sampling): Distribution {
    const { weights, depths } = this;
    let total = 0;
    for (let i = 0; i < logits.length; i++) {
      const depth = (peak - logits[i]!) / temperature;
      const weight = Math.fround(Math.exp(-depth));
      depths[i] = depth;
      weights[i] = weight;
      total += weight;
    }
    if (topP >= 1 && minP === 0) return { ids: undefined, weights, total };
    const ids = topP < 1 ? nucleus(depths, weights, total, topP) : atLeast(weights, minP);
    const kept = topP < 1 && minP > 0 ? ids.filter((id) => weights[id]! >= minP) : ids;
    return compact(
      kept,
      Array.from(kept, (id) => weights[id]!),
    );
  }
}

/** Penalties, bias and mask, in place. */
function adjust(
  logits: Float32Array,
  sampling: Sampling,
  { prompt, continuation }: History,
  mask?: TokenMask,
): void {
  const { repetitionPenalty, presencePenalty, frequencyPenalty, logitBias } = sampling;
  if (repetitionPenalty !== 1) {
    const seen = new Set(prompt);
    for (const id of continuation.keys()) seen.add(id);
    for (const id of seen) {
      const logit = logits[id]!;
      logits[id] = logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty;
    }
  }
  if (presencePenalty !== 0 || frequencyPenalty !== 0) {
    for (const [id, count] of continuation) logits[id]! -= presencePenalty + count * frequencyPenalty;
  }
  for (const [id, bias] of logitBias) logits[id]! += bias;
  if (mask) {
    for (let id = 0; id < logits.length; id++) {
      if (((mask[id >> 5]! >>> (id & 31)) & 1) === 0) logits[id] = Number.NEGATIVE_INFINITY;
    }
  }
}

/** @throws Error where logits are no numbers: broken weights, or an overflow */
function mostLikely(logits: Float32Array): number {
  const best = argmax(logits);
  if (Number.isFinite(logits[best])) return best;
  throw new Error(`the model computed ${logits[best]} as its largest logit`);
}

const onlyToken = (id: number): Distribution => compact([id], [1]);

function compact(ids: ArrayLike<number>, weights: ArrayLike<number>): Distribution {
  const kept = Float32Array.from(weights);
  return { ids: Int32Array.from(ids), weights: kept, total: sum(kept) };
}

function atLeast(weights: Float32Array, least: number): Int32Array {
  const ids: number[] = [];
  for (let i = 0; i < weights.length; i++) if (weights[i]! >= least) ids.push(i);
  return Int32Array.from(ids);
}
