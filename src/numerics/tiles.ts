import type { Minifloat } from './minifloat.js';

/**
 * Online scaling: each tile of a tensor gets the scale that maps its absolute maximum to the format's largest value
 * [TR §3.3.2]. Activations are scaled per 1×tile, weights per tile×tile. value ≈ decode(code) · scale.
 */
export type ScaleMode = 'fp32' | 'pow2';
type Values = Float32Array | Float64Array;
type Codes = Uint8Array | Uint16Array;

const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

/**
 * Scale of a tile: absMax / maxFinite in FP32; `pow2` raises it to the next power of two, so that scaling is exact.
 * 1 where that quotient is zero (all-zero tile), NaN where absMax is not finite.
 */
export function scaleOf(absMax: number, maxFinite: number, mode: ScaleMode): number {
  if (!(absMax < Number.POSITIVE_INFINITY)) return Number.NaN;
  scratch[0] = absMax / maxFinite;
  if (scratch[0] === 0) return 1;
  // Any mantissa bit carries into the exponent. The quotient cannot have been rounded down onto a power of two: FP32
  // numbers near maxFinite · 2^k are over 2^-24 of it apart, and those just above a power of two 2^-23.
  if (mode === 'pow2') scratchBits[0] = (scratchBits[0]! + 0x7fffff) & 0x7f800000;
  return scratch[0]!;
}

/** Largest magnitude of `count` values from `start`, `stride` apart; NaN if one of them is NaN. */
export function absMaxOf(values: Values, start: number, stride: number, count: number): number {
  let max = 0;
  for (let i = 0, at = start; i < count; i++, at += stride) max = Math.max(max, Math.abs(values[at]!));
  return max;
}

/** codes[i] = RNE(values[i] / scale), the quotient in FP32, for `count` neighbours from `start`. */
export function encodeRun(
  values: Values,
  start: number,
  count: number,
  scale: number,
  format: Minifloat,
  codes: Codes,
): void {
  for (let i = start; i < start + count; i++) codes[i] = format.encode(values[i]! / scale);
}

/**
 * values [rows, cols] → codes [rows, cols] with one scale per 1×tile along the columns.
 * @param scales [ceil(cols/tile), rows], tile-major
 */
export function quantizeTiles(
  values: Values,
  cols: number,
  tile: number,
  format: Minifloat,
  mode: ScaleMode,
  codes: Codes,
  scales: Values,
): void {
  const rows = values.length / cols;
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col += tile) {
      const start = row * cols + col;
      const count = Math.min(tile, cols - col);
      const scale = scaleOf(absMaxOf(values, start, 1, count), format.maxFinite, mode);
      scales[(col / tile) * rows + row] = scale;
      encodeRun(values, start, count, scale, format, codes);
    }
  }
}

/** Largest magnitude of a block of `rows`×`cols` values in a matrix with rows of `stride`; NaN if one of them is NaN. */
export function blockAbsMax(
  values: Values,
  start: number,
  stride: number,
  rows: number,
  cols: number,
): number {
  let max = 0;
  for (let row = 0; row < rows; row++) max = Math.max(max, absMaxOf(values, start + row * stride, 1, cols));
  return max;
}

/**
 * values [rows, cols] → codes [rows, cols] with one scale per tile×tile.
 * @param scales [ceil(rows/tile), ceil(cols/tile)]
 */
export function quantizeBlocks(
  values: Values,
  cols: number,
  tile: number,
  format: Minifloat,
  mode: ScaleMode,
  codes: Codes,
  scales: Values,
): void {
  forEachBlock(values.length / cols, cols, square(tile), (start, height, width, block) => {
    const scale = scaleOf(blockAbsMax(values, start, cols, height, width), format.maxFinite, mode);
    scales[block] = scale;
    for (let row = 0; row < height; row++) {
      encodeRun(values, start + row * cols, width, scale, format, codes);
    }
  });
}

/** The inverse of `quantizeBlocks`: out = decode(codes) · scale, as in checkpoints with `weight_scale_inv`. */
export function dequantizeBlocks(
  codes: Codes,
  cols: number,
  tile: number,
  format: Minifloat,
  scales: Values,
  out: Values,
): void {
  forEachBlock(codes.length / cols, cols, square(tile), (start, height, width, block) => {
    for (let row = 0; row < height; row++) {
      const from = start + row * cols;
      for (let i = from; i < from + width; i++) out[i] = format.decode(codes[i]!) * scales[block]!;
    }
  });
}

const square = (tile: number): BlockSize => ({ rows: tile, cols: tile });

/** Rows and columns of a block; infinity spans the whole matrix. */
export interface BlockSize {
  readonly rows: number;
  readonly cols: number;
}

/** Calls `visit` with first element, height, width and running number of every block, row by row. */
export function forEachBlock(
  rows: number,
  cols: number,
  size: BlockSize,
  visit: (start: number, height: number, width: number, block: number) => void,
): void {
  let block = 0;
  for (let row = 0; row < rows; row += size.rows) {
    for (let col = 0; col < cols; col += size.cols) {
      visit(row * cols + col, Math.min(size.rows, rows - row), Math.min(size.cols, cols - col), block++);
    }
  }
}
