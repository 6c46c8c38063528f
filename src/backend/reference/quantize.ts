import { decodeBf16Array, encodeBf16, encodeBf16Array } from '../../numerics/bf16.js';
import { E4M3, E5M2, E5M6, type Minifloat } from '../../numerics/minifloat.js';
import { absMaxOf, encodeRun, quantizeBlocks, quantizeTiles, scaleOf } from '../../numerics/tiles.js';
import { TILE } from '../../spec/model.js';
import type { Operand } from '../../spec/precision.js';
import type { PackedWeight, QuantizedTensor } from '../../tensor/backend.js';
import { isNarrow } from '../../tensor/quantized.js';
import type { DType, Tensor } from '../../tensor/tensor.js';
import { cast } from './elementwise.js';
import { commit, read, target, type Values } from './values.js';

const MINIFLOATS = { e4m3: E4M3, e5m2: E5M2, e5m6: E5M6 };

/** The codec of a narrow operand. */
const minifloatOf = (operand: Operand): Minifloat => MINIFLOATS[operand.format as keyof typeof MINIFLOATS];

/** Largest magnitude of a tensor that shares one scale; undefined for scales per tile. */
export const sharedAbsMax = (values: Values, operand: Operand): number | undefined =>
  isNarrow(operand) && operand.granularity === 'tensor' ? absMaxOf(values, 0, 1, values.length) : undefined;

/** values [rows, cols] → codes and scales [ceil(cols/128), rows], all from `absMax` where it is given. */
function encodeTiles(
  values: Values,
  cols: number,
  operand: Operand,
  absMax: number | undefined,
  codes: Uint8Array | Uint16Array,
  scales: Values,
): void {
  const format = minifloatOf(operand);
  if (absMax === undefined) {
    quantizeTiles(values, cols, TILE, format, operand.scale, codes, scales);
    return;
  }
  const scale = scaleOf(absMax, format.maxFinite, operand.scale);
  scales.fill(scale);
  encodeRun(values, 0, values.length, scale, format, codes);
}

/**
 * x [M, K] → codes = RNE(x / scale) and scale = absmax / max of the format per 1×128 tile, or of all x [TR §3.3.2]. E5M6 stores
 * its values as BF16, already times their scale where that is a power of two.
 */
export function quantize(x: Tensor, out: QuantizedTensor): void {
  const { operand, codes } = out;
  if (!isNarrow(operand)) {
    cast(x, codes);
    return;
  }
  const format = minifloatOf(operand);
  const wide = operand.format === 'e5m6' ? new Uint16Array(x.size) : undefined;
  const scales = out.scales ? read(out.scales) : new Float32Array(Math.ceil(x.cols / TILE) * x.rows);
  const values = read(x);
  const absMax = sharedAbsMax(values, operand);
  encodeTiles(values, x.cols, operand, absMax, wide ?? (codes.data as Uint8Array), scales);
  if (wide) storeAsBf16(format, wide, out.scales ? undefined : scales, codes);
}

/** E5M6 codes → BF16 values [M, K], times their `scales` [ceil(K/128), M] if given. */
function storeAsBf16(format: Minifloat, encoded: Uint16Array, scales: Values | undefined, out: Tensor): void {
  const { rows, cols } = out;
  const stored = out.data as Uint16Array;
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++) {
      const i = row * cols + col;
      const scale = scales ? scales[Math.floor(col / TILE) * rows + row]! : 1;
      stored[i] = encodeBf16(format.values[encoded[i]!]! * scale);
    }
  }
}

/** The values of an operand's codes [M, K], without their scales. */
export function codeValues({ codes }: QuantizedTensor): Values {
  if (codes.dtype !== 'e4m3' && codes.dtype !== 'e5m2') return read(codes);
  return MINIFLOATS[codes.dtype].decodeArray(codes.data as Uint8Array);
}

/** The values of an operand [M, K], scales applied, in FP32 (f64 if the codes are). */
export function operandValues(q: QuantizedTensor): Values {
  const values = codeValues(q);
  if (!q.scales) return values;
  const scales = read(q.scales);
  const { rows, cols } = q.codes;
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++) {
      values[row * cols + col]! *= scales[Math.floor(col / TILE) * rows + row]!;
    }
  }
  return values;
}

/** out [M, K] = the values of the operand. */
export function dequantize(q: QuantizedTensor, out: Tensor): void {
  const values = target(out);
  values.set(operandValues(q));
  commit(out, values);
}

/**
 * The packed weight of this backend: the values of the codes [G, N, K], or [G, K, N] where `transposed`, so that the
 * contraction is the last dimension; scales f32 [G, ceil(N/128), ceil(K/128)], none for fp32 and bf16.
 */
export function packedSizes(
  [g, n, k]: readonly [number, number, number],
  operand: Operand,
  _transposed: boolean,
  weight: DType = 'f32',
): { data: { dtype: 'f32' | 'f64'; elements: number }; scales: number } {
  const dtype = operand.format === 'fp32' && weight === 'f64' ? 'f64' : 'f32';
  const blocks = g * Math.ceil(n / TILE) * Math.ceil(k / TILE);
  return { data: { dtype, elements: g * n * k }, scales: isNarrow(operand) ? blocks : 0 };
}

/** w [G, N, K] → packed: rounded to the operand's format, with one scale per 128×128 block, or per matrix [TR §3.3.2]. */
export function packWeight(w: Tensor, out: PackedWeight): void {
  const [groups, n, k] = out.shape;
  const source = read(w);
  const data = read(out.data);
  const blocks = Math.ceil(n / TILE) * Math.ceil(k / TILE);
  for (let g = 0; g < groups; g++) {
    const matrix = source.subarray(g * n * k, (g + 1) * n * k);
    const scales = out.scales && read(out.scales).subarray(g * blocks, (g + 1) * blocks);
    const values = roundWeight(matrix, k, out.operand, scales);
    const packed = data.subarray(g * n * k, (g + 1) * n * k);
    if (out.transposed) packed.set(transpose(values, k));
    else packed.set(values);
  }
}

/** One matrix [N, K] in the operand's format; fills its scales. */
function roundWeight(matrix: Values, k: number, operand: Operand, scales: Values | undefined): Values {
  if (operand.format === 'fp32') return matrix;
  if (!scales) return decodeBf16Array(encodeBf16Array(matrix));
  const format = minifloatOf(operand);
  const codes = new Uint16Array(matrix.length);
  const absMax = sharedAbsMax(matrix, operand);
  if (absMax === undefined) quantizeBlocks(matrix, k, TILE, format, operand.scale, codes, scales);
  else encodeTiles(matrix, k, operand, absMax, codes, scales);
  return format.decodeArray(codes);
}

/**
 * values [rows, cols] rounded to an operand's format, in tiles of 1×128 or, where it is given, by the scale of `absMax`.
 * @returns the values of the codes and, for narrow formats, scales f32 [ceil(cols/128), rows]
 */
export function roundTiles(
  values: Values,
  cols: number,
  operand: Operand,
  absMax?: number,
): { values: Values; scales: Values | undefined } {
  if (operand.format === 'fp32') return { values, scales: undefined };
  if (operand.format === 'bf16')
    return { values: decodeBf16Array(encodeBf16Array(values)), scales: undefined };
  const format = minifloatOf(operand);
  const codes = new Uint16Array(values.length);
  const scales = new Float32Array(Math.ceil(cols / TILE) * (values.length / cols));
  encodeTiles(values, cols, operand, absMax, codes, scales);
  return { values: format.decodeArray(codes), scales };
}

/** x [rows, cols] → [cols, rows]. */
export function transpose(x: Values, cols: number): Values {
  const rows = x.length / cols;
  const out = x.slice();
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++) out[col * rows + row] = x[row * cols + col]!;
  }
  return out;
}
