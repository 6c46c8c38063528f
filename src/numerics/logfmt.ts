import { UsageError, UserError } from '../errors.js';
import { decodeBf16Array, encodeBf16Array } from './bf16.js';
import { exp, logRatio } from './elementary.js';
import { packCodes, packedBytes, unpackCodes } from './packing.js';

/**
 * LogFMT-n, n = 4..16 [ISCA §3.2]: a logarithmic format with its own range for every tile of 1×128 values.
 *
 * With min and max the logarithms of the smallest and the largest non-zero magnitude of the tile,
 *
 *     step  = (max − min) / (2^(n−1) − 2)
 *     value = sign · e^(min + step · (K − 1)),   K = 1 .. 2^(n−1) − 1;   K = 0 is zero
 *
 * where min is raised to at least max − ln(2^32). A code is the sign bit above the n − 1 bits of K.
 *
 * What the paper leaves open is settled here:
 * - min and step travel as FP32, and the encoder works on the grid that the decoder will see: the values e^(…) of
 *   those two, rounded to FP32 (at most the largest finite FP32 value).
 * - A magnitude gets the nearer of the two grid values around it, the even K on a tie. Below the first grid value
 *   the neighbour is zero. Magnitudes above the last one get the last.
 * - A tile of equal magnitudes has step 0 and K = 1 throughout; an all-zero tile has min = step = 0.
 * - Zero keeps its sign. NaN and infinity are refused.
 *
 * Wire layout: rows one after the other, each cut into tiles of 128 (the last may be shorter); a tile is min and step
 * as little-endian FP32, then its codes packed as in packing.ts, up to a whole byte. A full tile takes 8 + 16·n bytes.
 */

/** Values of one tile [ISCA §3.2]. */
export const LOGFMT_TILE = 128;
/** Bytes of min and step. */
export const LOGFMT_HEADER_BYTES = 8;

/** How K is chosen between two neighbours: nearest in value, or nearest in logarithm, which is biased [ISCA §3.2]. */
export type LogFmtRounding = 'linear' | 'log';

/** min and step of a tile, both FP32 values. */
export interface LogFmtHeader {
  min: number;
  step: number;
}

type Values = Float32Array | Float64Array;

const MAX_FP32 = (2 - 2 ** -23) * 2 ** 127;

/** @throws UsageError unless `bits` is an integer in 4..16 */
export function checkLogFmtBits(bits: number): void {
  if (Number.isInteger(bits) && bits >= 4 && bits <= 16) return;
  throw new UsageError(`LogFMT has 4 to 16 bits per value, not ${bits}; use logfmt4 to logfmt16`);
}

/** The grid of one tile: value of every code, and the code for a value. */
export class LogFmtGrid {
  /** Largest K in use. */
  readonly top: number;
  private readonly signBit: number;
  /**
   * e^(min + step·(K−1)) = (middle · low) · high, factors in FP64 for bits 0–3, 4–7 and 8 up of K. `middle` includes
   * e^(min − step).
   */
  private readonly low: Float64Array;
  private readonly middle: Float64Array;
  private readonly high: Float64Array;

  constructor(
    bits: number,
    readonly header: LogFmtHeader,
  ) {
    const { min, step } = header;
    this.top = step === 0 ? 1 : 2 ** (bits - 1) - 1;
    this.signBit = 2 ** (bits - 1);
    const powers = powersOf(step, bits - 1);
    this.low = products(1, powers.slice(0, 4));
    this.middle = products(exp(min - step), powers.slice(4, 8));
    this.high = products(1, powers.slice(8));
  }

  /** Magnitude of K, an FP32 value. */
  magnitude(k: number): number {
    if (k === 0) return 0;
    const value = this.middle[(k >>> 4) & 15]! * this.low[k & 15]! * this.high[k >>> 8]!;
    return Math.min(Math.fround(value), MAX_FP32);
  }

  /** Value of a code with its sign. */
  decode(code: number): number {
    return code & this.signBit ? -this.magnitude(code ^ this.signBit) : this.magnitude(code);
  }

  /** Code of a finite FP32 value. */
  encode(value: number, rounding: LogFmtRounding = 'linear'): number {
    const sign = value < 0 || Object.is(value, -0) ? this.signBit : 0;
    return sign | this.nearest(Math.abs(value), rounding);
  }

  private nearest(x: number, rounding: LogFmtRounding): number {
    if (x === 0) return 0;
    const k = this.below(x);
    if (k === this.top) return k;
    const [low, high] = [this.magnitude(k), this.magnitude(k + 1)];
    // Exact in FP64, as all three are FP32 values. In logarithm zero is infinitely far away.
    const excess = rounding === 'linear' ? x - low - (high - x) : k === 0 ? 1 : x * x - low * high;
    return excess > 0 || (excess === 0 && k % 2 === 1) ? k + 1 : k;
  }

  /** Largest K whose magnitude is at most x. */
  private below(x: number): number {
    const { min, step } = this.header;
    const guess = step === 0 ? 1 : 1 + Math.floor((Math.log(x) - min) / step);
    let k = Math.min(Math.max(guess, 0), this.top);
    while (k > 0 && this.magnitude(k) > x) k -= 1;
    while (k < this.top && this.magnitude(k + 1) <= x) k += 1;
    return k;
  }
}

/** e^(step · 2^b) for b below `count`: every third from its own exponential, the others by squaring, errors below 2^-50. */
function powersOf(step: number, count: number): number[] {
  const powers: number[] = [];
  for (let b = 0; b < count; b++) powers.push(b % 3 === 0 ? exp(step * 2 ** b) : powers[b - 1]! ** 2);
  return powers;
}

/** first · Π powers[b] over the bits b that are set in the index, for every index below 2^powers.length. */
function products(first: number, powers: number[]): Float64Array {
  const table = new Float64Array(2 ** powers.length).fill(first);
  powers.forEach((power, b) => {
    for (let i = 0; i < 2 ** b; i++) table[i + 2 ** b] = table[i]! * power;
  });
  return table;
}

/** Smallest non-zero and largest magnitude of a run; both 0 if all are zero; NaN where one is not finite. */
function magnitudes(values: Values, start: number, count: number): { least: number; most: number } {
  let [least, most] = [Number.POSITIVE_INFINITY, 0];
  for (let i = start; i < start + count; i++) {
    const x = Math.abs(Math.fround(values[i]!));
    if (!(x < Number.POSITIVE_INFINITY)) return { least: Number.NaN, most: Number.NaN };
    if (x > most) most = x;
    if (x > 0 && x < least) least = x;
  }
  return most === 0 ? { least: 0, most: 0 } : { least, most };
}

/**
 * min and step of a tile, from its smallest non-zero and its largest magnitude.
 * @param bits n of LogFMT-n
 */
export function logFmtHeader(least: number, most: number, bits: number): LogFmtHeader {
  if (most === 0) return { min: 0, step: 0 };
  // max − ln(2^32) is the logarithm of most·2^-32, which is exact.
  const first = Math.max(least, most * 2 ** -32);
  const step = logRatio(most, first) / (2 ** (bits - 1) - 2);
  return { min: Math.fround(logRatio(first, 1)), step: Math.fround(step) };
}

/** Bytes of [rows, cols] values on the wire: what a planner counts. */
export function logFmtBytes(rows: number, cols: number, bits: number): number {
  checkLogFmtBits(bits);
  const full = Math.floor(cols / LOGFMT_TILE);
  const rest = cols % LOGFMT_TILE;
  const tail = rest === 0 ? 0 : LOGFMT_HEADER_BYTES + packedBytes(rest, bits);
  return rows * (full * (LOGFMT_HEADER_BYTES + packedBytes(LOGFMT_TILE, bits)) + tail);
}

/**
 * values [rows, cols] → wire bytes [logFmtBytes(rows, cols, bits)]. FP64 input is rounded to FP32 first.
 * @throws UserError where a value is NaN or infinite, naming its tile
 */
export function encodeLogFmt(
  values: Values,
  cols: number,
  bits: number,
  rounding: LogFmtRounding = 'linear',
  out: Uint8Array = new Uint8Array(logFmtBytes(values.length / cols, cols, bits)),
): Uint8Array {
  const view = new DataView(out.buffer, out.byteOffset, out.length);
  const codes = new Uint16Array(LOGFMT_TILE);
  let at = 0;
  forEachTile(values.length, cols, (start, count, tile) => {
    const { least, most } = magnitudes(values, start, count);
    if (Number.isNaN(most)) throw notFinite(bits, tile, cols);
    const header = logFmtHeader(least, most, bits);
    const grid = new LogFmtGrid(bits, header);
    for (let i = 0; i < count; i++) codes[i] = grid.encode(Math.fround(values[start + i]!), rounding);
    view.setFloat32(at, header.min, true);
    view.setFloat32(at + 4, header.step, true);
    at = packCodes(codes, 0, count, bits, out, at + LOGFMT_HEADER_BYTES);
  });
  return out;
}

/**
 * Wire bytes → values [rows, cols] in `out`, which sets their number; returns `out`.
 * @throws UserError where the length is wrong, or where no encoder writes such a min or step
 */
export function decodeLogFmt(wire: Uint8Array, cols: number, bits: number, out: Float32Array): Float32Array {
  checkWireLength(wire.length, out.length, cols, bits);
  const view = new DataView(wire.buffer, wire.byteOffset, wire.length);
  const codes = new Uint16Array(LOGFMT_TILE);
  let at = 0;
  forEachTile(out.length, cols, (start, count, tile) => {
    const header = { min: view.getFloat32(at, true), step: view.getFloat32(at + 4, true) };
    if (!isSane(header)) throw damagedTile(bits, tile);
    const grid = new LogFmtGrid(bits, header);
    unpackCodes(wire, at + LOGFMT_HEADER_BYTES, count, bits, codes, 0);
    for (let i = 0; i < count; i++) out[start + i] = grid.decode(codes[i]!);
    at += LOGFMT_HEADER_BYTES + packedBytes(count, bits);
  });
  return out;
}

/** @throws UserError unless `length` bytes hold `count` values in rows of `cols` */
export function checkWireLength(length: number, count: number, cols: number, bits: number): void {
  const needed = logFmtBytes(count / cols, cols, bits);
  if (length === needed) return;
  throw new UserError(
    `${count} values in rows of ${cols} take ${needed} bytes as LogFMT-${bits}, but there are ${length}`,
  );
}

/** |ln x| is at most 104 for every FP32 value, and step at most ln(2^32) / 6. */
const isSane = ({ min, step }: LogFmtHeader): boolean => Math.abs(min) <= 104 && step >= 0 && step <= 4;

/** The error for a tile whose min or step no encoder writes. */
export function damagedTile(bits: number, tile: number): UserError {
  return new UserError(
    `tile ${tile} of LogFMT-${bits} data is damaged: its min or step is out of range; send or write the data again`,
  );
}

/** Calls `visit` with the first element, the length and the running number of every tile, row by row. */
function forEachTile(
  count: number,
  cols: number,
  visit: (start: number, count: number, tile: number) => void,
): void {
  let tile = 0;
  for (let row = 0; row < count; row += cols) {
    for (let col = 0; col < cols; col += LOGFMT_TILE) {
      visit(row + col, Math.min(LOGFMT_TILE, cols - col), tile++);
    }
  }
}

/** The error for a tile that holds NaN or infinity. @param tile its running number */
export function notFinite(bits: number, tile: number, cols: number): UserError {
  const tilesPerRow = Math.ceil(cols / LOGFMT_TILE);
  const [row, column] = [Math.floor(tile / tilesPerRow), (tile % tilesPerRow) * LOGFMT_TILE];
  return new UserError(
    `LogFMT-${bits} cannot hold NaN or infinity: tile ${tile} (row ${row}, from column ${column}) has one; ` +
      'look for where the values stopped being finite',
  );
}

// ---- One interface for the reference and the native codec -------------------------------------------------------

/** Values on their way through the codec: FP32, or BF16 as its codes. */
export type LogFmtValues = Float32Array | Uint16Array;

/** Encoder and decoder of [rows, cols] values; the native one is `nativeLogFmt`. */
export interface LogFmtCodec {
  /** As `encodeLogFmt`. */
  encode(
    values: LogFmtValues,
    cols: number,
    bits: number,
    rounding?: LogFmtRounding,
    out?: Uint8Array,
  ): Uint8Array;
  /** As `decodeLogFmt`; BF16 is rounded from FP32. */
  decode<V extends LogFmtValues>(wire: Uint8Array, cols: number, bits: number, out: V): V;
}

export const referenceLogFmt: LogFmtCodec = {
  encode: (values, cols, bits, rounding, out) =>
    encodeLogFmt(
      values instanceof Float32Array ? values : decodeBf16Array(values),
      cols,
      bits,
      rounding,
      out,
    ),
  decode: (wire, cols, bits, out) => {
    if (out instanceof Float32Array) decodeLogFmt(wire, cols, bits, out);
    else encodeBf16Array(decodeLogFmt(wire, cols, bits, new Float32Array(out.length)), out);
    return out;
  },
};
