import type { RouterShape } from '../../tensor/backend.js';
import type { Tensor } from '../../tensor/tensor.js';
import { sameType, sigmoid } from './elementwise.js';
import { addScaled, commit, dot, integers, read, rounding, target, type Values } from './values.js';

/** Keeps the sum of the chosen scores from being zero, as in DeepSeek's published model code. */
const SUM_EPSILON = 1e-20;

type Round = (x: number) => number;

/** Scores of one token from its logits [E]: sigmoid (V3) or softmax (V2). */
function scoresOf(logits: Values, { scoring }: RouterShape, round: Round): Float64Array {
  const scores = new Float64Array(logits);
  if (scoring === 'sigmoid') {
    for (let e = 0; e < scores.length; e++) scores[e] = round(sigmoid(scores[e]!));
    return scores;
  }
  let max = Number.NEGATIVE_INFINITY;
  for (let e = 0; e < scores.length; e++) max = Math.max(max, scores[e]!);
  let sum = 0;
  for (let e = 0; e < scores.length; e++) {
    scores[e] = Math.exp(scores[e]! - max);
    sum += scores[e]!;
  }
  for (let e = 0; e < scores.length; e++) scores[e] = round(scores[e]! / sum);
  return scores;
}

/**
 * Marks the `count` largest unmarked values, in descending order, the lower index first on a tie; calls `visit` with
 * each. Values that do not compare (NaN) still give distinct indices.
 */
function pickLargest(
  values: Float64Array,
  count: number,
  taken: Uint8Array,
  visit: (index: number) => void,
): void {
  for (let k = 0; k < count; k++) {
    let best = -1;
    for (let i = 0; i < values.length; i++) {
      if (!taken[i] && (best < 0 || values[i]! > values[best]!)) best = i;
    }
    taken[best] = 1;
    visit(best);
  }
}

/** Score of one group: the sum of its two best choices (noaux_tc) or its best one. */
function groupScore(choices: Float64Array, shape: RouterShape, round: Round): number {
  let [best, second] = [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const choice of choices) {
    second = Math.max(second, Math.min(best, choice));
    best = Math.max(best, choice);
  }
  return shape.method === 'noaux_tc' ? round(best + second) : best;
}

/** Marks the experts outside the best `topGroups` groups. */
function excludeGroups(choices: Float64Array, shape: RouterShape, taken: Uint8Array, round: Round): void {
  const size = shape.experts / shape.groups;
  const scores = new Float64Array(shape.groups);
  for (let g = 0; g < shape.groups; g++) {
    scores[g] = groupScore(choices.subarray(g * size, (g + 1) * size), shape, round);
  }
  taken.fill(1);
  pickLargest(scores, shape.topGroups, new Uint8Array(shape.groups), (g) => {
    taken.fill(0, g * size, (g + 1) * size);
  });
}

/**
 * Gate [TR §2.1.2 eq. 12–16; V2 §2.1.2]. The bias takes part in the choice (noaux_tc) and never in the weights.
 * weights = s_k / Σ_chosen s where normalised, times scalingFactor. Scores are rounded to FP32, the type of the
 * logits, before they are compared, so that saturated sigmoids tie.
 * logits [T, E], bias [E] → ids i32 [T, K], weights [T, K], load i32 [E].
 */
export function route(
  logits: Tensor,
  bias: Tensor,
  shape: RouterShape,
  ids: Tensor,
  weights: Tensor,
  load: Tensor,
): void {
  const [rows, offset, out] = [read(logits), read(bias), read(weights)];
  const [chosen, counts] = [integers(ids), integers(load)];
  const { experts, topK } = shape;
  const round = rounding(logits);
  counts.fill(0);
  for (let t = 0; t < logits.rows; t++) {
    const scores = scoresOf(rows.subarray(t * experts, (t + 1) * experts), shape, round);
    const picked = chosen.subarray(t * topK, (t + 1) * topK);
    choose(scores, offset, shape, round, picked);
    for (const e of picked) counts[e]!++;
    const factor = shape.scalingFactor / denominator(scores, picked, shape);
    picked.forEach((e, k) => {
      out[t * topK + k] = scores[e]! * factor;
    });
  }
}

/** Fills `picked` [K] with one token's experts. */
function choose(
  scores: Float64Array,
  bias: Values,
  shape: RouterShape,
  round: Round,
  picked: Int32Array,
): void {
  const choices = shape.method === 'noaux_tc' ? scores.map((s, e) => round(s + bias[e]!)) : scores;
  const taken = new Uint8Array(shape.experts);
  if (shape.method !== 'greedy' && shape.topGroups < shape.groups) {
    excludeGroups(choices, shape, taken, round);
  }
  let k = 0;
  pickLargest(choices, shape.topK, taken, (e) => {
    picked[k++] = e;
  });
}

/** What divides the chosen scores: their sum, or 1. */
function denominator(scores: Float64Array, picked: Int32Array, shape: RouterShape): number {
  if (!shape.normalize) return 1;
  return picked.reduce((sum, e) => sum + scores[e]!, SUM_EPSILON);
}

/**
 * Through the weights: w_k = c·s_k/S gives ds_k = (c/S)·(dw_k − Σ_j dw_j s_j/S). Through the balance loss
 * Σ_e f_e·P_e of each sequence [TR §2.1.2 eq. 17–20], with f_e = E/(K·T)·(times e was chosen) held constant and
 * P_e the mean over the sequence of s'_e = s_e/Σ_j s_j. Then through sigmoid or softmax.
 * dweights [T, K], logits, dlogits [T, E], ids i32 [T, K], sequences i32 [S+1], balanceLoss [1].
 */
export function routeBackward(
  dweights: Tensor,
  saved: { logits: Tensor; ids: Tensor; sequences: Tensor },
  shape: RouterShape,
  balanceFactor: number,
  dlogits: Tensor,
  balanceLoss: Tensor,
): void {
  const [rows, upstream, out] = [read(saved.logits), read(dweights), target(dlogits)];
  const [ids, bounds] = [integers(saved.ids), integers(saved.sequences)];
  const { experts, topK } = shape;
  const round = rounding(saved.logits);
  const scores = new Float64Array(rows.length); // [T, E]
  const dscores = new Float64Array(rows.length); // [T, E]
  for (let t = 0; t < saved.logits.rows; t++) {
    const [from, to] = [t * experts, (t + 1) * experts];
    scores.set(scoresOf(rows.subarray(from, to), shape, round), from);
    const picked = ids.subarray(t * topK, (t + 1) * topK);
    const dw = upstream.subarray(t * topK, (t + 1) * topK);
    weightsBackward(dw, picked, scores.subarray(from, to), shape, dscores.subarray(from, to));
  }
  read(balanceLoss)[0] = balanceBackward(scores, ids, bounds, shape, balanceFactor, dscores);
  for (let from = 0; from < rows.length; from += experts) {
    const [s, ds] = [scores.subarray(from, from + experts), dscores.subarray(from, from + experts)];
    scoringBackward(s, ds, shape, out.subarray(from, from + experts));
  }
  commit(dlogits, out);
}

/** One token: dw [K] → ds [E], which is zero before. */
function weightsBackward(
  dw: Values,
  picked: Int32Array,
  s: Float64Array,
  shape: RouterShape,
  ds: Float64Array,
): void {
  const sum = denominator(s, picked, shape);
  const mean = shape.normalize ? picked.reduce((total, e, k) => total + (dw[k]! * s[e]!) / sum, 0) : 0;
  picked.forEach((e, k) => {
    ds[e] = (shape.scalingFactor / sum) * (dw[k]! - mean);
  });
}

/** Adds the gradient of factor · (balance loss) to dscores [T, E]; returns the loss, averaged over sequences. */
function balanceBackward(
  scores: Float64Array,
  ids: Int32Array,
  bounds: Int32Array,
  shape: RouterShape,
  factor: number,
  dscores: Float64Array,
): number {
  const { experts, topK } = shape;
  const sequences = bounds.length - 1;
  let loss = 0;
  for (let sequence = 0; sequence < sequences; sequence++) {
    const [first, end] = [bounds[sequence]!, bounds[sequence + 1]!];
    const f = new Float64Array(experts);
    for (let i = first * topK; i < end * topK; i++) f[ids[i]!]! += experts / (topK * (end - first));
    for (let t = first; t < end; t++) {
      const s = scores.subarray(t * experts, (t + 1) * experts);
      const sum = s.reduce((a, b) => a + b, 0);
      const fMean = dot(f, 0, s, 0, experts) / sum; // Σ_e f_e s'_e
      const share = 1 / ((end - first) * sequences);
      loss += share * fMean;
      const ds = dscores.subarray(t * experts, (t + 1) * experts);
      for (let e = 0; e < experts; e++) ds[e]! += (factor * share * (f[e]! - fMean)) / sum;
    }
  }
  return loss;
}

/** ds [E] → dlogits [E] of one token: sigmoid' = s(1−s); softmax: s_e·(ds_e − Σ_j ds_j s_j). */
function scoringBackward(s: Float64Array, ds: Float64Array, { scoring }: RouterShape, out: Values): void {
  const mean = scoring === 'softmax' ? dot(ds, 0, s, 0, s.length) : 0;
  for (let e = 0; e < s.length; e++) {
    out[e] = scoring === 'softmax' ? s[e]! * (ds[e]! - mean) : ds[e]! * s[e]! * (1 - s[e]!);
  }
}

/**
 * Rows sorted by expert, within an expert by token, of all (token, choice) pairs.
 * ids i32 [T, K] → offsets i32 [E+1], source i32 [R] (token of each row), slot i32 [T, K] (row of each pair).
 */
export function dispatchPlan(ids: Tensor, offsets: Tensor, source: Tensor, slot: Tensor): void {
  const [chosen, bounds, tokens, rows] = [integers(ids), integers(offsets), integers(source), integers(slot)];
  bounds.fill(0);
  for (const e of chosen) bounds[e + 1]!++;
  for (let e = 1; e < bounds.length; e++) bounds[e]! += bounds[e - 1]!;
  const next = bounds.slice();
  chosen.forEach((e, pair) => {
    const row = next[e]!++;
    tokens[row] = Math.floor(pair / ids.cols);
    rows[pair] = row;
  });
}

/** out[r] = x[source[r]]: x [T, D] → out [R, D]. */
export function permute(x: Tensor, source: Tensor, out: Tensor): void {
  sameType(x, out);
  const width = x.cols; // D
  integers(source).forEach((t, r) => {
    out.data.set(x.data.subarray(t * width, (t + 1) * width), r * width);
  });
}

/** y[t] = Σ_k weights[t, k] · x[slot[t, k]], weights 1 where absent: x [R, D], slot [T, K] → y [T, D]. */
export function unpermute(x: Tensor, slot: Tensor, weights: Tensor | undefined, y: Tensor): void {
  const rows = read(x);
  const place = integers(slot);
  const factor = weights && read(weights);
  const out = target(y);
  const [width, topK] = [x.cols, slot.cols]; // D, K
  const sum = new Float64Array(width);
  for (let t = 0; t < slot.rows; t++) {
    sum.fill(0);
    for (let pair = t * topK; pair < (t + 1) * topK; pair++) {
      addScaled(sum, 0, factor ? factor[pair]! : 1, rows, place[pair]! * width, width);
    }
    out.set(sum, t * width);
  }
  commit(y, out);
}

/** dx[slot[t, k]] = weights[t, k] · dy[t]; dweights[t, k] = dy[t] · x[slot[t, k]]. Shapes as in `unpermute`. */
export function unpermuteBackward(
  dy: Tensor,
  x: Tensor,
  slot: Tensor,
  weights: Tensor,
  dx: Tensor,
  dweights: Tensor,
): void {
  const [upstream, rows, factor] = [read(dy), read(x), read(weights)];
  const [out, dfactor] = [target(dx), read(dweights)];
  const width = dy.cols; // D
  integers(slot).forEach((row, pair) => {
    const from = Math.floor(pair / slot.cols) * width;
    for (let i = 0; i < width; i++) out[row * width + i] = factor[pair]! * upstream[from + i]!;
    dfactor[pair] = dot(upstream, from, rows, row * width, width);
  });
  commit(dx, out);
}
