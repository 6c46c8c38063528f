/** Stored weights and products with them, the plain way: row by row. */
import fs from 'node:fs';
import { readFully, withFileErrors } from '../../files.js';
import { decodeBf16Array, encodeBf16Array, roundBf16 } from '../../numerics/bf16.js';
import { INT8 } from '../../numerics/formats.js';
import { E4M3 } from '../../numerics/minifloat.js';
import { quantizeBlocks } from '../../numerics/tiles.js';
import { decodeQ4Row, encodeInt8, encodeQ4, INT8_TILE, Q4_TILE } from '../../numerics/weights.js';
import type { WeightFormat } from '../../spec/serving.js';
import type { InferenceOps, StoredWeight, WeightPiece } from '../../tensor/inference.js';
import type { Tensor } from '../../tensor/tensor.js';
import { allocatePiece, describeWeight, fp32Piece } from '../stored.js';
import { commit, dot, integers, read, type Values } from './values.js';

/** No mapping here: the bytes are read. */
export function mapFile(file: string, position: number, bytes: number): ArrayBuffer {
  const out = new Uint8Array(bytes);
  const descriptor = withFileErrors('read', file, () => fs.openSync(file, 'r'));
  try {
    if (readFully(descriptor, out, position)) return out.buffer;
    throw new Error(`mapFile: ${file} is shorter than the ${position + bytes} bytes that were asked for`);
  } finally {
    fs.closeSync(descriptor);
  }
}

export const residentBytes = (bytes: Uint8Array): number => bytes.byteLength;

export function forgetPages(): void {}

export const storeWeight: InferenceOps['storeWeight'] = (format, k, groups) => ({
  ...describeWeight(format, k, groups),
  handle: undefined,
});

export const encodeWeight: InferenceOps['encodeWeight'] = (format, values, k) => {
  if (format === 'fp32') return fp32Piece(values, k);
  const { piece, codes, scales } = allocatePiece(format, values.length / k, k);
  if (format === 'bf16') encodeBf16Array(values, new Uint16Array(codes.buffer));
  if (format === 'int8') encodeInt8(values, k, codes, scales);
  if (format === 'fp8') quantizeBlocks(values, k, 128, E4M3, 'fp32', codes, scales);
  if (format === 'q4') encodeQ4(values, k, codes);
  return piece;
};

/** One row of a weight: values of its codes [K], and a scale for every `tile` columns. */
interface Row {
  values: Values;
  tile: number;
  scaleOf(tile: number): number;
}

/** x [M, K] as a format multiplies it. */
interface Tokens {
  values: Values;
  /** Of each row and 128 columns. */
  scaleOf(row: number, tile: number): number;
}

export function project(
  x: Tensor,
  w: StoredWeight,
  y: Tensor,
  options: { offsets?: Tensor; accumulate?: boolean } = {},
): void {
  const bounds = options.offsets ? integers(options.offsets) : Int32Array.of(0, x.rows);
  if (bounds.length !== w.groups + 1)
    throw new Error(`project: ${w.groups} groups, ${bounds.length} offsets`);
  const tokens = tokensOf(x, w.format);
  const out = read(y);
  for (let g = 0; g < w.groups; g++) {
    if (bounds[g] === bounds[g + 1]) continue;
    for (const [n, row] of rowsOf(w, g)) {
      for (let m = bounds[g]!; m < bounds[g + 1]!; m++) {
        const before = options.accumulate ? out[m * w.n + n]! : 0;
        out[m * w.n + n] = before + product(tokens, m, row, w.k);
      }
    }
  }
  commit(y, out);
}

function product(tokens: Tokens, m: number, row: Row, k: number): number {
  let sum = 0;
  for (let from = 0; from < k; from += row.tile) {
    const count = Math.min(row.tile, k - from);
    const part = dot(tokens.values, m * k + from, row.values, from, count);
    sum += part * row.scaleOf(Math.floor(from / row.tile)) * tokens.scaleOf(m, Math.floor(from / INT8_TILE));
  }
  return sum;
}

function tokensOf(x: Tensor, format: WeightFormat): Tokens {
  const values = read(x);
  if (format === 'fp32') return { values, scaleOf: () => 1 };
  if (format === 'bf16' || format === 'fp8')
    return { values: values.map(roundBf16) as Values, scaleOf: () => 1 };
  const tiles = Math.ceil(x.cols / INT8_TILE);
  const codes = new Uint8Array(x.size);
  const scales = new Float32Array(x.rows * tiles);
  encodeInt8(values, x.cols, codes, scales);
  return {
    values: Float32Array.from(codes, (code) => INT8.decode(code)),
    scaleOf: (m, tile) => scales[m * tiles + tile]!,
  };
}

/** Rows ids i32 [M] → out f32 [M, K]. */
export function readRows(w: StoredWeight, ids: Tensor, out: Tensor): void {
  const values = read(out);
  integers(ids).forEach((id, m) => {
    const row = findRow(w, id);
    for (let i = 0; i < w.k; i++)
      values[m * w.k + i] = row.values[i]! * row.scaleOf(Math.floor(i / row.tile));
  });
}

function findRow(w: StoredWeight, row: number): Row {
  let first = 0;
  for (const piece of w.pieces[0]!) {
    if (row < first + piece.rows) return rowOf(w.format, piece, row - first, w.k);
    first += piece.rows;
  }
  throw new RangeError(`row ${row} of a weight of ${w.n}`);
}

/** The rows of group g with their numbers. */
function* rowsOf(w: StoredWeight, g: number): Generator<[number, Row]> {
  let n = 0;
  for (const piece of w.pieces[g]!) {
    for (let r = 0; r < piece.rows; r++) yield [n++, rowOf(w.format, piece, r, w.k)];
  }
}

function rowOf(format: WeightFormat, piece: WeightPiece, r: number, k: number): Row {
  if (format === 'q4') {
    const { codes, scales } = decodeQ4Row(piece.codes, r, k);
    return { values: codes, tile: Q4_TILE, scaleOf: (tile) => scales[tile]! };
  }
  const tiles = Math.ceil(k / INT8_TILE);
  const row = format === 'fp8' ? Math.floor((piece.first + r) / 128) : r;
  return {
    values: rowValues(format, piece.codes, r, k),
    tile: INT8_TILE,
    scaleOf: (tile) => (piece.scales ? floats(piece.scales, row * tiles + tile, 1)[0]! : 1),
  };
}

function rowValues(format: WeightFormat, codes: Uint8Array, r: number, k: number): Values {
  if (format === 'fp32') return floats(codes, r * k, k);
  if (format === 'bf16')
    return decodeBf16Array(new Uint16Array(codes.slice(2 * r * k, 2 * (r + 1) * k).buffer));
  const bytes = codes.subarray(r * k, (r + 1) * k);
  return Float32Array.from(bytes, (code) => (format === 'fp8' ? E4M3.decode(code) : INT8.decode(code)));
}

/** Floats from bytes at any alignment. */
const floats = (bytes: Uint8Array, from: number, count: number): Float32Array =>
  new Float32Array(bytes.slice(4 * from, 4 * (from + count)).buffer);
