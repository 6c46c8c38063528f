import type { Tensor } from '../tensor/tensor.js';
import type { LogitOps } from './logit-ops.js';
import { largest } from './select.js';

export interface IdLogprob {
  id: number;
  logprob: number;
}

/** log p of a token under logits f32 [1, V], and the `count` most likely tokens. */
export function logprobsOf(
  ops: LogitOps,
  logits: Tensor,
  id: number,
  count: number,
): IdLogprob & { top: IdLogprob[] } {
  const { peak, total } = ops.weights(logits, 1);
  const logSumExp = peak + Math.log(total);
  const values = logits.data as Float32Array;
  const of = (token: number): IdLogprob => ({ id: token, logprob: values[token]! - logSumExp });
  return { ...of(id), top: Array.from(largest(values, count), of) };
}
