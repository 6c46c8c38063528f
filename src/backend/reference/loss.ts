import type { Tensor } from '../../tensor/tensor.js';
import { commit, integers, read, target, type Values } from './values.js';

/** y[t] = table[ids[t]]: ids i32 [T], table [V, D] → y [T, D]. */
export function embedding(ids: Tensor, table: Tensor, y: Tensor): void {
  const rows = read(table);
  const out = target(y);
  const width = y.cols; // D
  integers(ids).forEach((id, t) => {
    out.set(rows.subarray(id * width, (id + 1) * width), t * width);
  });
  commit(y, out);
}

/** dtable[ids[t]] += dy[t], in the order of the tokens. */
export function embeddingBackward(ids: Tensor, dy: Tensor, dtable: Tensor): void {
  const rows = read(dtable);
  const upstream = read(dy);
  const width = dy.cols; // D
  integers(ids).forEach((id, t) => {
    for (let i = 0; i < width; i++) rows[id * width + i]! += upstream[t * width + i]!;
  });
}

/**
 * losses[t] = log Σ_v exp(logits[t, v]) − logits[t, target], 0 where the target is negative;
 * dlogits[t, v] = (softmax(logits[t])_v − [v = target]) · gradientScale, 0 there.
 * logits, dlogits [T, V], targets i32 [T], losses [T].
 */
export function crossEntropy(
  logits: Tensor,
  targets: Tensor,
  losses: Tensor,
  dlogits: Tensor | undefined,
  gradientScale: number,
): void {
  const scores = read(logits);
  const loss = read(losses);
  const gradient = dlogits && target(dlogits);
  const width = logits.cols; // V
  integers(targets).forEach((wanted, t) => {
    const row = scores.subarray(t * width, (t + 1) * width);
    const out = gradient?.subarray(t * width, (t + 1) * width);
    if (wanted < 0) {
      loss[t] = 0;
      out?.fill(0);
      return;
    }
    const lse = logSumExp(row);
    loss[t] = lse - row[wanted]!;
    if (out) softmaxGradient(row, lse, wanted, gradientScale, out);
  });
  if (dlogits && gradient) commit(dlogits, gradient);
}

/** log Σ exp(x), shifted by the maximum. */
function logSumExp(x: Values): number {
  let max = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < x.length; i++) max = Math.max(max, x[i]!);
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += Math.exp(x[i]! - max);
  return max + Math.log(sum);
}

function softmaxGradient(row: Values, lse: number, wanted: number, scale: number, out: Values): void {
  for (let v = 0; v < row.length; v++) {
    out[v] = (Math.exp(row[v]! - lse) - (v === wanted ? 1 : 0)) * scale;
  }
}
