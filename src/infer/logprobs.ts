import { argmax, largest } from './select.js';

export interface IdLogprob {
  id: number;
  logprob: number;
}

/** log p of a token under logits f32 [V], and the `count` most likely tokens: log softmax in double precision. */
export function logprobsOf(
  logits: Float32Array,
  id: number,
  count: number,
): IdLogprob & { top: IdLogprob[] } {
  const peak = logits[argmax(logits)]!;
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i]! - peak);
  const logSumExp = peak + Math.log(sum);
  const of = (token: number): IdLogprob => ({ id: token, logprob: logits[token]! - logSumExp });
  return { ...of(id), top: Array.from(largest(logits, count), of) };
}
