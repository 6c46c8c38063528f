import type { Transformer } from '../model/transformer.js';
import type { Recipe } from '../spec/precision.js';
import { Pool } from '../tensor/pool.js';
import { Tape } from '../tensor/tape.js';
import { Tensor } from '../tensor/tensor.js';

export interface TokenProbability {
  id: number;
  logprob: number;
}

/** What a model thinks of a text. */
export interface Score {
  /** The ids scored. */
  tokens: number[];
  /** log p of each token after the first, nats: one shorter than `tokens`. */
  logprobs: number[];
  /** −mean of logprobs. */
  meanNll: number;
  /** exp(meanNll). */
  perplexity: number;
  /** Per position, the most likely next tokens, the last position's included: as long as `tokens`. */
  top: TokenProbability[][];
}

/**
 * Scores a sequence of at least two tokens and at most the model's context in one pass.
 * @param count how many of the most likely tokens to list per position
 */
export function score(model: Transformer, recipe: Recipe, tokens: readonly number[], count: number): Score {
  const bounds = Tensor.i32([0, tokens.length]);
  const layout = { positions: Tensor.i32(tokens.map((_, i) => i)), segments: bounds, sequences: bounds };
  const tape = new Tape(model.backend, new Pool(model.backend), false);
  const ctx = model.context(tape, recipe, layout, { rmsNorm: false, mlaUpProjection: false });
  const logits = model.logits(ctx, model.forward(ctx, Tensor.i32([...tokens]))); // f32 [T, V]
  const rows = tokens.map((_, t) => logProbabilities(logits.rowsView(t, t + 1).data));
  const logprobs = tokens.slice(1).map((id, t) => rows[t]![id]!);
  const meanNll = -logprobs.reduce((a, b) => a + b, 0) / logprobs.length;
  return {
    tokens: [...tokens],
    logprobs,
    meanNll,
    perplexity: Math.exp(meanNll),
    top: rows.map((row) => mostLikely(row, count)),
  };
}

/** log softmax, in double precision. */
function logProbabilities(logits: ArrayLike<number>): Float64Array {
  const values = Float64Array.from(logits);
  const max = values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const sum = values.reduce((a, b) => a + Math.exp(b - max), 0);
  const logSumExp = max + Math.log(sum);
  return values.map((x) => x - logSumExp);
}

function mostLikely(logprobs: Float64Array, count: number): TokenProbability[] {
  if (count === 0) return [];
  const ids = Array.from(logprobs, (_, id) => id).sort((a, b) => logprobs[b]! - logprobs[a]! || a - b);
  return ids.slice(0, count).map((id) => ({ id, logprob: logprobs[id]! }));
}
