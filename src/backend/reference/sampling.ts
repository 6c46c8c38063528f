import type { Tensor } from '../../tensor/tensor.js';
import { commit, read } from './values.js';

/** Index of the largest of each row, the first of several; NaN counts as less than everything. */
export function argmax(logits: Tensor, index: Tensor): void {
  for (let r = 0; r < index.size; r++) {
    const row = read(logits.rowsView(r, r + 1));
    let best = 0;
    let top = Number.NEGATIVE_INFINITY;
    for (let i = 0; i < row.length; i++) {
      if (row[i]! > top) {
        top = row[i]!;
        best = i;
      }
    }
    index.data[r] = best;
  }
}

/** weights = exp((logits − peak)/temperature), sums = [peak, Σ weights] of each row; NaN where a logit is NaN or peak is infinite. */
export function softmaxWeights(logits: Tensor, temperature: number, weights: Tensor, sums: Tensor): void {
  for (let r = 0; r < sums.rows; r++) {
    const row = read(logits.rowsView(r, r + 1));
    let peak = Number.NEGATIVE_INFINITY;
    for (let i = 0; i < row.length; i++) if (row[i]! > peak) peak = row[i]!;
    const out = weights.rowsView(r, r + 1);
    const values = read(out);
    let total = 0;
    for (let i = 0; i < row.length; i++) {
      values[i] = Math.exp((row[i]! - peak) / temperature);
      total += values[i]!;
    }
    commit(out, values);
    sums.data.set([peak, total], 2 * r);
  }
}
