import type { Random } from '../numerics/random.js';

/** How the next token is chosen from its logits. */
export interface Sampling {
  /** 0 takes the most likely token; 1 samples from the model's own distribution. */
  temperature: number;
  /** Keep the smallest set of tokens whose probabilities sum to at least this. */
  topP: number;
  /** Keep this many of the most likely tokens; 0 keeps all. */
  topK: number;
}

/** Index of the largest logit, the first of several. */
export function argmax(logits: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i;
  return best;
}

/** Draws a token id from logits [V]. */
export function sample(
  logits: ArrayLike<number>,
  { temperature, topP, topK }: Sampling,
  random: Random,
): number {
  if (temperature === 0) return argmax(logits);
  const order = Array.from({ length: logits.length }, (_, i) => i).sort(
    (a, b) => logits[b]! - logits[a]! || a - b,
  );
  const kept = topK > 0 ? order.slice(0, topK) : order;
  const largest = logits[kept[0]!]!;
  const weights = kept.map((i) => Math.exp((logits[i]! - largest) / temperature));
  const nucleus = nucleusSize(weights, topP);
  const total = weights.slice(0, nucleus).reduce((a, b) => a + b, 0);
  let left = random.uniform() * total;
  for (let i = 0; i < nucleus; i++) {
    left -= weights[i]!;
    if (left < 0) return kept[i]!;
  }
  return kept[nucleus - 1]!;
}

/** Length of the shortest prefix of descending weights that holds `topP` of their sum. */
function nucleusSize(weights: readonly number[], topP: number): number {
  const bound = topP * weights.reduce((a, b) => a + b, 0);
  let sum = 0;
  for (let i = 0; i < weights.length; i++) {
    sum += weights[i]!;
    if (sum >= bound) return i + 1;
  }
  return weights.length;
}
