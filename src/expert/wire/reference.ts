import { decodeBf16Array, encodeBf16Array } from '../../numerics/bf16.js';
import { decodeLogFmt, encodeLogFmt } from '../../numerics/logfmt.js';
import { E4M3, E5M2, E5M6, type Minifloat } from '../../numerics/minifloat.js';
import { packCodes, unpackCodes } from '../../numerics/packing.js';
import { absMaxOf, scaleOf } from '../../numerics/tiles.js';
import type { Tensor } from '../../tensor/tensor.js';
import { rowBytes, tileBytes, WIRE_TILE, type WireFormat } from './format.js';
import type { Summands, WireKernels } from './kernels.js';

/** The documentation of each kernel; layout of a row as in native/wire.h. Arithmetic is in FP32, as there. */
export const referenceWire: WireKernels = {
  encode: (x, source, format, pow2, base, places) => {
    const values = valuesOf(x);
    places.forEach((place, r) => {
      const from = (source?.[r] ?? r) * x.cols;
      encodeRow(values.subarray(from, from + x.cols), format, pow2, bytesAt(base, place, format, x.cols));
    });
  },
  decode: (base, places, format, out) => {
    const values = new Float32Array(out.size);
    places.forEach((place, r) => {
      values.set(decodeRow(bytesAt(base, place, format, out.cols), format, out.cols), r * out.cols);
    });
    store(out, values);
  },
  sum: (first, second, out) => {
    const values = new Float32Array(out.size);
    for (const list of second ? [first, second] : [first]) addRows(list, out.cols, values);
    store(out, values);
  },
  sumTo: (list, width, format, base, places) => {
    const sums = new Float32Array(places.length * width);
    addRows(list, width, sums);
    places.forEach((place, p) => {
      const row = sums.subarray(p * width, (p + 1) * width);
      encodeRow(row, format, false, bytesAt(base, place, format, width));
    });
  },
  partial: (rows, members, weights, bounds, base, places) => {
    const values = valuesOf(rows);
    const format: WireFormat = { kind: 'float', format: rows.dtype === 'bf16' ? 'bf16' : 'fp32' };
    places.forEach((place, p) => {
      const sum = new Float32Array(rows.cols);
      for (let j = bounds[p]!; j < bounds[p + 1]!; j++) {
        const weight = weights?.[j] ?? 1;
        const from = members[j]! * rows.cols;
        for (let i = 0; i < rows.cols; i++) sum[i] = sum[i]! + Math.fround(values[from + i]! * weight);
      }
      encodeRow(sum, format, false, bytesAt(base, place, format, rows.cols));
    });
  },
};

const valuesOf = (x: Tensor): Float32Array =>
  x.dtype === 'bf16' ? decodeBf16Array(x.data as Uint16Array) : (x.data as Float32Array);

function store(out: Tensor, values: Float32Array): void {
  if (out.dtype === 'bf16') encodeBf16Array(values, out.data as Uint16Array);
  else (out.data as Float32Array).set(values);
}

const bytesAt = (base: Uint8Array, place: number, format: WireFormat, width: number): Uint8Array =>
  base.subarray(4 * place, 4 * place + rowBytes(format, width));

function addRows({ base, format, bounds, places }: Summands, width: number, sums: Float32Array): void {
  for (let p = 0; p + 1 < bounds.length; p++) {
    for (let j = bounds[p]!; j < bounds[p + 1]!; j++) {
      const row = decodeRow(bytesAt(base, places[j]!, format, width), format, width);
      for (let i = 0; i < width; i++) sums[p * width + i] = sums[p * width + i]! + row[i]!;
    }
  }
}

function encodeRow(values: Float32Array, format: WireFormat, pow2: boolean, out: Uint8Array): void {
  const size = tileBytes(format, WIRE_TILE);
  for (let column = 0, at = 0; column < values.length; column += WIRE_TILE, at += size) {
    const tile = values.subarray(column, column + WIRE_TILE);
    encodeTile(tile, format, pow2, out.subarray(at, at + tileBytes(format, tile.length)));
  }
}

function encodeTile(tile: Float32Array, wire: WireFormat, pow2: boolean, out: Uint8Array): void {
  if (wire.kind === 'logfmt') {
    if (tile.every(Number.isFinite)) encodeLogFmt(tile, tile.length, wire.bits, 'linear', out);
    else out.fill(0xff);
  } else if (wire.format === 'fp32') out.set(new Uint8Array(Float32Array.from(tile).buffer));
  else if (wire.format === 'bf16') out.set(new Uint8Array(encodeBf16Array(tile).buffer));
  else encodeScaled(tile, NARROW[wire.format], pow2, out);
}

const NARROW = {
  e4m3: { format: E4M3, bits: 8 },
  e5m2: { format: E5M2, bits: 8 },
  e5m6: { format: E5M6, bits: 12 },
} as const;

function encodeScaled(
  tile: Float32Array,
  { format, bits }: { format: Minifloat; bits: number },
  pow2: boolean,
  out: Uint8Array,
): void {
  const scale = scaleOf(absMaxOf(tile, 0, 1, tile.length), format.maxFinite, pow2 ? 'pow2' : 'fp32');
  new DataView(out.buffer, out.byteOffset).setFloat32(0, scale, true);
  const codes = Array.from(tile, (value) => format.encode(Number.isNaN(scale) ? Number.NaN : value / scale));
  packCodes(codes, 0, codes.length, bits, out, 4);
}

function decodeRow(bytes: Uint8Array, format: WireFormat, width: number): Float32Array {
  const row = new Float32Array(width);
  const size = tileBytes(format, WIRE_TILE);
  for (let column = 0, at = 0; column < width; column += WIRE_TILE, at += size) {
    const tile = row.subarray(column, column + WIRE_TILE);
    decodeTile(bytes.subarray(at, at + tileBytes(format, tile.length)), format, tile);
  }
  return row;
}

function decodeTile(bytes: Uint8Array, wire: WireFormat, tile: Float32Array): void {
  if (wire.kind === 'logfmt') decodeLogTile(bytes, wire.bits, tile);
  else if (wire.format === 'fp32') tile.set(new Float32Array(bytes.slice().buffer));
  else if (wire.format === 'bf16') tile.set(decodeBf16Array(new Uint16Array(bytes.slice().buffer)));
  else {
    const { format, bits } = NARROW[wire.format];
    const scale = new DataView(bytes.buffer, bytes.byteOffset).getFloat32(0, true);
    const codes = new Uint16Array(tile.length);
    unpackCodes(bytes, 4, tile.length, bits, codes, 0);
    codes.forEach((code, i) => {
      tile[i] = Math.fround(format.decode(code)) * scale;
    });
  }
}

function decodeLogTile(bytes: Uint8Array, bits: number, tile: Float32Array): void {
  try {
    decodeLogFmt(bytes, tile.length, bits, tile);
  } catch {
    tile.fill(Number.NaN);
  }
}
