import { UserError } from '../errors.js';
import { decodeBf16Array } from '../numerics/bf16.js';
import type { Recipe } from '../spec/precision.js';
import type { Observer } from '../tensor/observer.js';
import type { Parameter } from '../tensor/parameter.js';
import { Tensor } from '../tensor/tensor.js';

/** Rows of each product that are checked, and experts of a grouped one. */
const ROWS = 4;
const GROUPS = 4;
/** Standard deviations of rounding beyond which a sum is wrong: one in 10^15 by chance. */
const DEVIATIONS = 8;
/**
 * Relative rounding of one product, as a standard deviation: two operands of 3 fraction bits, uniform within 2^-4; one of BF16, the
 * other being BF16 already, and a result of BF16, within 2^-9; FP32 sums of a few thousand products.
 */
const ROUNDING = { narrow: 2 ** -4, bf16: 2 ** -9, fp32: 2 ** -20 } as const;
export type Rounding = keyof typeof ROUNDING;

/** Rounding of most products of a recipe; those that it keeps in a wider format are judged by it too. */
export function roundingOf({ linear }: Recipe): Rounding {
  const { format } = linear.fprop.input;
  return format === 'fp32' || format === 'bf16' ? format : 'narrow';
}

/**
 * Algorithm-based checksums [Huang and Abraham, 1984; ISCA §6.1] of forward products y = x·Wᵀ: the sum of a row of y must be the
 * product of the row of x with the sum of W's rows, up to rounding. Of routed experts some have their turn, others another time.
 * @param step for the message, and for whose turn it is
 */
export const gemmVerifier = (step: number, rounding: Rounding): Observer => ({
  linear: (w, x, y, offsets) => {
    const wrong = offsets
      ? firstWrongRowOfGroups(w, x, y, rounding, offsets, step)
      : firstWrongRow(w.value, x, y, rounding);
    if (wrong === undefined) return;
    throw new UserError(
      `step ${step}: row ${wrong} of the product with ${w.name} does not have its checksum: memory or a computation was ` +
        'corrupted; resume from the last checkpoint, on another machine if it happens again',
    );
  },
});

/** Rows of a product: from `from` to before `to`. */
interface Range {
  from: number;
  to: number;
}

/** As `firstWrongRow` for a grouped weight [G, N, K], some groups from number `turn` · `GROUPS` on. @param offsets i32 [G+1] */
export function firstWrongRowOfGroups(
  { value }: Parameter,
  x: Tensor,
  y: Tensor,
  rounding: Rounding,
  offsets: Tensor,
  turn: number,
): number | undefined {
  const [groups, n, k] = value.shape as [number, number, number];
  const bounds = offsets.data as Int32Array;
  for (let i = 0; i < Math.min(GROUPS, groups); i++) {
    const g = (turn * GROUPS + i) % groups;
    const range = { from: bounds[g]!, to: bounds[g + 1]! };
    if (range.from === range.to) continue;
    const weights = (value.data as Float32Array).subarray(g * n * k, (g + 1) * n * k);
    const wrong = firstWrongRow(Tensor.f32([n, k], weights), x, y, rounding, range);
    if (wrong !== undefined) return wrong;
  }
  return undefined;
}

/** The first of some rows, spread over y [M, N] or a range of it, whose sum is not that of x [M, K] times W [N, K]. */
export function firstWrongRow(
  w: Tensor,
  x: Tensor,
  y: Tensor,
  rounding: Rounding,
  { from, to }: Range = { from: 0, to: x.rows },
): number | undefined {
  const { sums, squares } = columnSums(w);
  const step = Math.max(1, Math.floor((to - from) / ROWS));
  for (let row = from; row < to; row += step) {
    const [given, made] = [valuesOf(x, row), valuesOf(y, row)];
    let [expected, variance] = [0, 0];
    for (let k = 0; k < given.length; k++) {
      expected += given[k]! * sums[k]!;
      variance += given[k]! ** 2 * squares[k]!;
    }
    const found = made.reduce((a, b) => a + b, 0);
    if (!(Math.abs(found - expected) <= DEVIATIONS * ROUNDING[rounding] * Math.sqrt(variance))) return row;
  }
  return undefined;
}

/** Σ_n W[n, k] and Σ_n W[n, k]² for every k, in FP64. */
function columnSums(w: Tensor): { sums: Float64Array; squares: Float64Array } {
  const [sums, squares] = [new Float64Array(w.cols), new Float64Array(w.cols)];
  const values = w.data as Float32Array;
  for (let i = 0, k = 0; i < values.length; i++, k = k + 1 === w.cols ? 0 : k + 1) {
    const value = values[i]!;
    sums[k]! += value;
    squares[k]! += value * value;
  }
  return { sums, squares };
}

/** One row of an f32 or bf16 matrix. */
function valuesOf(t: Tensor, row: number): Float32Array {
  const { data } = t.rowsView(row, row + 1);
  return t.dtype === 'bf16' ? decodeBf16Array(data as Uint16Array) : (data as Float32Array);
}
