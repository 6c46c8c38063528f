import { exponentOf } from './elementary.js';
import { blocksOver, type ScaledMatrix } from './scaled.js';

/**
 * Accumulators of matrix units, and a matrix product through any of them: for studies, plain and slow.
 *
 * - `fp32` adds product by product, in order, each sum rounded to FP32.
 * - `fp22` is Hopper's for FP8 [ISCA §3.1.1, TR §3.3.2]: 32 products at a time are shifted to the largest exponent
 *   among them and cut off after 13 fraction bits; their sum is added to a register of 1 sign, 8 exponent and 13 mantissa
 *   bits, what is beyond being cut off. With `promotion` the register is emptied into an FP32 sum every N_C elements.
 */
export interface Accumulator {
  readonly kind: 'fp32' | 'fp22';
  /** N_C, elements of the contraction; 128 in DeepSeek-V3 [TR §3.3.2]. `fp22` only. */
  readonly promotion?: number;
}

/** Products that the unit adds at once, and fraction bits that it keeps [ISCA §3.1.1]. */
const GROUP = 32;
const FRACTION_BITS = 13;
/** Exponent of the smallest normal FP22 and FP32 number. */
const MIN_EXPONENT = -126;

/** x with the fraction bits beyond the 13th after that of 2^exponent cut off. */
function cutOff(x: number, exponent: number): number {
  const quantum = 2 ** (Math.max(exponent, MIN_EXPONENT) - FRACTION_BITS);
  return Math.trunc(x / quantum) * quantum;
}

/** x cut off to FP22: 1 sign, 8 exponent, 13 mantissa bits. */
export const truncateFp22 = (x: number): number => (x === 0 ? 0 : cutOff(x, exponentOf(Math.abs(x))));

/** Sum of at most 32 products as the unit forms it: exact once each is shifted and cut off. NaN if one is not finite. */
export function alignedSum(products: ArrayLike<number>, count = products.length): number {
  let largest = 0;
  for (let i = 0; i < count; i++) largest = Math.max(largest, Math.abs(products[i]!));
  if (largest === 0) return 0;
  if (!(largest < Number.POSITIVE_INFINITY)) return Number.NaN;
  const exponent = exponentOf(largest);
  let sum = 0;
  for (let i = 0; i < count; i++) sum += cutOff(products[i]!, exponent);
  return sum;
}

type Values = Float32Array | Float64Array;

/** Σ a[aStart + i] · b[bStart + i] for i below `count`, as the accumulator sums it. */
type Dot = (a: Values, aStart: number, b: Values, bStart: number, count: number) => number;

const products = new Float32Array(GROUP);

const dotFp32: Dot = (a, aStart, b, bStart, count) => {
  let sum = 0;
  for (let i = 0; i < count; i++) sum = Math.fround(sum + a[aStart + i]! * b[bStart + i]!);
  return sum;
};

/** Products are FP32, which those of the values of narrow formats fit exactly. */
export const dotFp22: Dot = (a, aStart, b, bStart, count) => {
  let register = 0;
  for (let from = 0; from < count; from += GROUP) {
    const length = Math.min(GROUP, count - from);
    for (let i = 0; i < length; i++) products[i] = a[aStart + from + i]! * b[bStart + from + i]!;
    register = truncateFp22(register + alignedSum(products, length));
  }
  return register;
};

/**
 * out [M, N] = a [M, K] · b [N, K]ᵀ. Codes are multiplied and summed by the accumulator as long as both scales stay the
 * same and no promotion is due; the partial sum is then scaled and added to the result, in FP32, or in FP22 where an
 * `fp22` accumulator has no promotion.
 */
export function studyGemm(a: ScaledMatrix, b: ScaledMatrix, accumulator: Accumulator): Float32Array {
  if (a.cols !== b.cols) throw new RangeError(`contractions differ: ${a.cols} and ${b.cols}`);
  const dot = accumulator.kind === 'fp32' ? dotFp32 : dotFp22;
  const round =
    accumulator.kind === 'fp22' && accumulator.promotion === undefined ? truncateFp22 : Math.fround;
  const [left, right] = [decodeAll(a), decodeAll(b)];
  const parts = segments(a.cols, [a.scaling.block.cols, b.scaling.block.cols, accumulator.promotion]);
  const out = new Float32Array(a.rows * b.rows);
  for (let m = 0; m < a.rows; m++) {
    for (let n = 0; n < b.rows; n++) {
      let sum = 0;
      for (const { from, count } of parts) {
        const part = dot(left, m * a.cols + from, right, n * b.cols + from, count);
        sum = round(sum + part * scaleAt(a, m, from) * scaleAt(b, n, from));
      }
      out[m * b.rows + n] = sum;
    }
  }
  return out;
}

const decodeAll = ({ codes, format }: ScaledMatrix): Float32Array =>
  Float32Array.from(codes, (code) => format.decode(code));

/** Scale of the element in `row` and `col`. */
function scaleAt(
  { cols, scales, matrixScale, scaling: { block } }: ScaledMatrix,
  row: number,
  col: number,
): number {
  const across = blocksOver(cols, block.cols);
  return Math.fround(
    scales[Math.floor(row / block.rows) * across + Math.floor(col / block.cols)]! * matrixScale,
  );
}

/** 0..length cut at the multiples of every given interval. */
function segments(length: number, intervals: (number | undefined)[]): { from: number; count: number }[] {
  const list: { from: number; count: number }[] = [];
  for (let from = 0; from < length; ) {
    const ends = intervals.map((interval = length) =>
      interval < length ? (Math.floor(from / interval) + 1) * interval : length,
    );
    const end = Math.min(length, ...ends);
    list.push({ from, count: end - from });
    from = end;
  }
  return list;
}
