import type { Random } from '../numerics/random.js';
import type { Tensor } from '../tensor/tensor.js';
import { type Distribution, draw, keep, sum, type Verified, verify } from './distribution.js';
import type { LogitOps } from './logit-ops.js';
import type { Sampling } from './sampling-options.js';
import { largest, nucleus } from './select.js';

/** What a sequence has seen, for penalties. */
export interface History {
  /** Tokens of prompt and continuation; only where a repetition penalty looks for them. */
  seen: ReadonlySet<number>;
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
  /** f32 [V], zeros between calls. */
  private readonly zeros: Float32Array;

  constructor(private readonly ops: LogitOps) {
    this.zeros = new Float32Array(ops.vocabulary);
  }

  /** Draws from logits f32 [1, V], which are overwritten. */
  sample(logits: Tensor, sampling: Sampling, history: History, random: Random, mask?: TokenMask): number {
    const { temperature } = sampling;
    if (temperature > 0) return draw(this.distribution(logits, sampling, history, mask), random);
    return this.mostLikely(logits, sampling, history, mask);
  }

  /** Draws a token to be verified, from logits f32 [1, V] of the MTP module, which are overwritten. */
  draft(logits: Tensor, sampling: Sampling, history: History, random: Random): Draft {
    const distribution = keep(this.distribution(logits, sampling, history));
    return { token: draw(distribution, random), distribution };
  }

  /** Accepts or replaces a token drawn from `draft`, by logits f32 [1, V], which are overwritten. */
  verify(
    { token: drafted, distribution: draft }: Draft,
    logits: Tensor,
    sampling: Sampling,
    history: History,
    random: Random,
  ): Verified {
    if (sampling.temperature === 0) {
      const token = this.mostLikely(logits, sampling, history);
      return { token, accepted: token === drafted };
    }
    return verify(drafted, this.distribution(logits, sampling, history), draft, random, this.zeros);
  }

  /**
   * The distribution that the options make of logits f32 [1, V], which are overwritten. In the sampler's memory: valid until
   * the next call.
   */
  distribution(logits: Tensor, sampling: Sampling, history: History, mask?: TokenMask): Distribution {
    const { temperature, topK } = sampling;
    if (temperature === 0) return compact([this.mostLikely(logits, sampling, history, mask)], [1]);
    adjust(logits.data as Float32Array, sampling, history, mask);
    return topK > 0 && topK < logits.size ? this.fewLargest(logits, sampling) : this.ofAll(logits, sampling);
  }

  private mostLikely(logits: Tensor, sampling: Sampling, history: History, mask?: TokenMask): number {
    adjust(logits.data as Float32Array, sampling, history, mask);
    return this.ops.argmax(logits);
  }

  /** Top-k first: what follows has k tokens to look at. */
  private fewLargest(logits: Tensor, { temperature, topK, topP, minP }: Sampling): Distribution {
    const values = logits.data as Float32Array;
    const peak = values[this.ops.argmax(logits)]!;
    const ids = largest(values, topK);
    const weights = Float32Array.from(ids, (id) => Math.exp((values[id]! - peak) / temperature));
    const enough = topP < 1 ? sum(weights) * topP : Number.POSITIVE_INFINITY;
    let [kept, mass] = [0, 0];
    const least = leastLogit(peak, temperature, minP);
    while (kept < ids.length && (kept === 0 || mass < enough) && values[ids[kept]!]! >= least) {
      mass += weights[kept++]!;
    }
    const order = Array.from({ length: kept }, (_, i) => i).sort((a, b) => ids[a]! - ids[b]!);
    return compact(
      order.map((i) => ids[i]!),
      order.map((i) => weights[i]!),
    );
  }

  private ofAll(logits: Tensor, { temperature, topP, minP }: Sampling): Distribution {
    const { weights, peak, total } = this.ops.weights(logits, temperature);
    if (topP >= 1 && minP === 0) return { ids: undefined, weights, total };
    const values = logits.data as Float32Array;
    const least = leastLogit(peak, temperature, minP);
    const ids = topP < 1 ? nucleus(weights, total, topP) : atLeast(values, least);
    const kept = topP < 1 && minP > 0 ? ids.filter((id) => values[id]! >= least) : ids;
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
  { seen, continuation }: History,
  mask?: TokenMask,
): void {
  const { repetitionPenalty, presencePenalty, frequencyPenalty, logitBias } = sampling;
  if (repetitionPenalty !== 1) {
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

function compact(ids: ArrayLike<number>, weights: ArrayLike<number>): Distribution {
  const kept = Float32Array.from(weights);
  return { ids: Int32Array.from(ids), weights: kept, total: sum(kept) };
}

/** The logit of a token that is `minP` times as likely as the most likely one. */
const leastLogit = (peak: number, temperature: number, minP: number): number =>
  peak + temperature * Math.log(minP);

function atLeast(values: Float32Array, least: number): Int32Array {
  const ids: number[] = [];
  for (let i = 0; i < values.length; i++) if (values[i]! >= least) ids.push(i);
  return Int32Array.from(ids);
}
