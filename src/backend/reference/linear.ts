import { dotFp22, truncateFp22 } from '../../numerics/accumulate.js';
import { TILE } from '../../spec/model.js';
import type { Operand } from '../../spec/precision.js';
import type { GemmOptions, PackedWeight, QuantizedTensor } from '../../tensor/backend.js';
import { type Fp22, fp22Of, isNarrow } from '../../tensor/quantized.js';
import type { Tensor } from '../../tensor/tensor.js';
import { codeValues, operandValues, roundTiles, sharedAbsMax, transpose } from './quantize.js';
import { commit, dot, integers, read, type Values } from './values.js';

/** One side of a product: rows of `inner` values that are contracted, times a scale per row and tile. */
interface Factor {
  /** [rows, inner] */
  values: Values;
  scaleOf(row: number, tile: number): number;
}

const UNSCALED = () => 1;

/** Four inner products at once, of rows `stride` apart; JavaScript engines run them side by side. */
const quad = new Float64Array(4);

function dotFour(a: Values, aStart: number, stride: number, b: Values, bStart: number, count: number): void {
  let [s0, s1, s2, s3] = [0, 0, 0, 0];
  const [a1, a2, a3] = [aStart + stride, aStart + 2 * stride, aStart + 3 * stride];
  for (let i = 0; i < count; i++) {
    const x = b[bStart + i]!;
    s0 += a[aStart + i]! * x;
    s1 += a[a1 + i]! * x;
    s2 += a[a2 + i]! * x;
    s3 += a[a3 + i]! * x;
  }
  quad[0] = s0;
  quad[1] = s1;
  quad[2] = s2;
  quad[3] = s3;
}

/**
 * y[m, n] += Σ_tiles sa[m, tile] · sb[n, tile] · Σ_{i in tile} a[m, i] · b[n, i] for a [M, inner], b [N, inner].
 * `promote`: tiles are 128 products, each added to an FP32 sum [TR §3.3.2]; else one tile in double precision.
 */
function multiply(a: Factor, b: Factor, inner: number, promote: boolean, y: Values): void {
  const rows = a.values.length / inner;
  const columns = b.values.length / inner;
  let m = 0;
  while (m < rows) {
    const count = rows - m >= 4 ? 4 : 1;
    for (let n = 0; n < columns; n++) multiplyRows(a, m, count, b, n, inner, promote, y, columns);
    m += count;
  }
}

/** `count` (1 or 4) elements of y: rows from `m`, column `n`. */
function multiplyRows(
  a: Factor,
  m: number,
  count: number,
  b: Factor,
  n: number,
  inner: number,
  promote: boolean,
  y: Values,
  columns: number,
): void {
  const step = promote ? TILE : inner;
  const sums = [0, 0, 0, 0];
  for (let start = 0, tile = 0; start < inner; start += step, tile++) {
    const length = Math.min(step, inner - start);
    if (count === 4) dotFour(a.values, m * inner + start, inner, b.values, n * inner + start, length);
    else quad[0] = dot(a.values, m * inner + start, b.values, n * inner + start, length);
    for (let r = 0; r < count; r++) {
      const sum = sums[r]! + quad[r]! * a.scaleOf(m + r, tile) * b.scaleOf(n, tile);
      sums[r] = promote ? Math.fround(sum) : sum;
    }
  }
  for (let r = 0; r < count; r++) y[(m + r) * columns + n]! += sums[r]!;
}

/** As `multiply`, with Hopper's accumulator, which is emptied every 128 products or at the end. */
function multiplyFp22(a: Factor, b: Factor, inner: number, { whole, promote }: Fp22, y: Values): void {
  const segment = whole ? inner : TILE;
  const columns = b.values.length / inner;
  const round = promote ? Math.fround : truncateFp22;
  for (let m = 0; m < a.values.length / inner; m++) {
    for (let n = 0; n < columns; n++) {
      let sum = 0;
      for (let start = 0; start < inner; start += segment) {
        const length = Math.min(segment, inner - start);
        const register = dotFp22(a.values, m * inner + start, b.values, n * inner + start, length);
        const tile = start / TILE;
        sum = round(sum + register * a.scaleOf(m, tile) * b.scaleOf(n, tile));
      }
      y[m * columns + n]! += sum;
    }
  }
}

/** Row bounds of the groups: `offsets`, or all rows as one group. */
const boundsOf = (offsets: Tensor | undefined, rows: number): Int32Array =>
  offsets ? integers(offsets) : Int32Array.of(0, rows);

/**
 * out[m, :] (+)= a[m, :] · w_g for the rows m of each group g. a [M, K] and w_g [N, K] give out [M, N]; with a
 * transposed weight a [M, N] gives out [M, K], the Dgrad of a Linear.
 */
export function gemm(
  a: QuantizedTensor,
  w: PackedWeight,
  out: Tensor,
  options: GemmOptions & { accumulate?: boolean } = {},
): void {
  const inner = a.codes.cols;
  const bounds = boundsOf(options.offsets, out.rows);
  const promote = isNarrow(a.operand) || isNarrow(w.operand);
  const fp22 = fp22Of(options.accumulator, a.operand, w.operand);
  const input = codeValues(a);
  const y = read(out);
  if (!options.accumulate) y.fill(0);
  for (let g = 0; g + 1 < bounds.length; g++) {
    const [first, end] = [bounds[g]!, bounds[g + 1]!];
    const rows = { values: input.subarray(first * inner, end * inner), scaleOf: tileScales(a, first) };
    const part = y.subarray(first * out.cols, end * out.cols);
    if (fp22) multiplyFp22(rows, weightFactor(w, g), inner, fp22, part);
    else multiply(rows, weightFactor(w, g), inner, promote, part);
  }
  commit(out, y);
}

/** Scales of an operand's rows, counted from row `first`: [ceil(K/128), M] by (row, tile). */
function tileScales({ codes, scales }: QuantizedTensor, first: number): Factor['scaleOf'] {
  if (!scales) return UNSCALED;
  const values = read(scales);
  return (row, tile) => values[tile * codes.rows + first + row]!;
}

/** Matrix g of a packed weight, its rows being the outputs. */
function weightFactor(w: PackedWeight, g: number): Factor {
  const [, n, k] = w.shape;
  const values = read(w.data).subarray(g * n * k, (g + 1) * n * k);
  if (!w.scales) return { values, scaleOf: UNSCALED };
  const across = Math.ceil(k / TILE);
  const blocks = Math.ceil(n / TILE) * across;
  const scales = read(w.scales).subarray(g * blocks, (g + 1) * blocks);
  const block = (row: number) => Math.floor(row / TILE);
  const scaleOf: Factor['scaleOf'] = w.transposed
    ? (row, tile) => scales[tile * across + block(row)]!
    : (row, tile) => scales[block(row) * across + tile]!;
  return { values, scaleOf };
}

/**
 * dw[g] += Σ_m dy[m, :]ᵀ x[m, :] over the rows of each group, both operands brought to their format in 128×1 tiles
 * from the group's first row, or with one scale for all rows. dy [M, N], x [M, K], dw [G, N, K].
 */
export function gemmWgrad(
  dy: Tensor,
  x: QuantizedTensor,
  dw: Tensor,
  operands: { gradient: Operand; input: Operand },
  options: GemmOptions & { overwrite?: boolean } = {},
): void {
  const upstream = read(dy);
  const input = operandValues(x);
  const gradient = read(dw);
  if (options.overwrite) gradient.fill(0);
  const bounds = boundsOf(options.offsets, dy.rows);
  const size = dy.cols * x.codes.cols;
  const promote = isNarrow(operands.gradient) || isNarrow(operands.input);
  const shared = {
    gradient: sharedAbsMax(upstream, operands.gradient),
    input: sharedAbsMax(input, operands.input),
  };
  for (let g = 0; g + 1 < bounds.length; g++) {
    const [first, end] = [bounds[g]!, bounds[g + 1]!];
    if (first === end) continue;
    const left = columnsOf(upstream, dy.cols, first, end, operands.gradient, shared.gradient);
    const right = columnsOf(input, x.codes.cols, first, end, operands.input, shared.input);
    const part = gradient.subarray(g * size, (g + 1) * size);
    const fp22 = fp22Of(options.accumulator, operands.gradient, operands.input);
    if (fp22) multiplyFp22(left, right, end - first, fp22, part);
    else multiply(left, right, end - first, promote, part);
  }
}

/** Rows first..end of a matrix [M, width], transposed to [width, end − first] and rounded to `operand`. */
function columnsOf(
  matrix: Values,
  width: number,
  first: number,
  end: number,
  operand: Operand,
  absMax: number | undefined,
): Factor {
  const part = transpose(matrix.subarray(first * width, end * width), width);
  const { values, scales } = roundTiles(part, end - first, operand, absMax);
  return { values, scaleOf: scales ? (row, tile) => scales[tile * width + row]! : UNSCALED };
}
