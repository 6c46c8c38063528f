/**
 * Formats that weights are kept in for inference: 8 bits with one scale per row and 128 columns, and 4 bits with one
 * per row and 32 columns, in panels.
 */
import { decodeBf16, encodeBf16 } from './bf16.js';
import { INT8 } from './formats.js';
import { absMaxOf, scaleOf } from './tiles.js';

type Values = Float32Array | Float64Array;

/** Columns that share a scale. */
export const INT8_TILE = 128;
export const Q4_TILE = 32;

/** A q4 panel: 16 rows × 64 columns; 8 lines of 64 bytes of codes, then 2 × 16 BF16 scales. */
export const Q4_PANEL = { rows: 16, columns: 64, codeBytes: 512, bytes: 576 } as const;

/**
 * values [rows, cols] → int8 codes [rows, cols] and scales [rows, ceil(cols/128)]: absmax / 127 in FP32, codes to nearest
 * even. A tile of zeros has scale 1; one with NaN or infinity has scale NaN and codes 0.
 */
export function encodeInt8(values: Values, cols: number, codes: Uint8Array, scales: Float32Array): void {
  const tiles = Math.ceil(cols / INT8_TILE);
  for (let start = 0, row = 0; start < values.length; start += cols, row++) {
    for (let tile = 0; tile < tiles; tile++) {
      const from = start + tile * INT8_TILE;
      const count = Math.min(INT8_TILE, start + cols - from);
      const scale = scaleOf(absMaxOf(values, from, 1, count), INT8.maxFinite, 'fp32');
      scales[row * tiles + tile] = scale;
      if (Number.isNaN(scale)) codes.fill(0, from, from + count);
      else for (let i = from; i < from + count; i++) codes[i] = roundEven(Math.fround(values[i]! / scale));
    }
  }
}

/** Offset in a panel of the byte with the code of (row, column); of columns 4 to 7 of every 8 it is the high half. */
const q4Byte = (row: number, column: number): number => 64 * (column >> 3) + 4 * row + (column & 3);

/** Offset in a panel of the scale of (row, column). */
const q4ScaleAt = (row: number, column: number): number =>
  Q4_PANEL.codeBytes + 32 * Math.floor(column / Q4_TILE) + 2 * row;

/**
 * Scale of 32 values in q4: the one of largest magnitude (the first of equals) becomes code −8, so scale = value / −8, rounded
 * to BF16; 1 where that is zero, NaN where a value is not finite.
 */
function q4Scale(values: Values, from: number, count: number): number {
  let extreme = 0;
  for (let i = from; i < from + count; i++) {
    if (!Number.isFinite(values[i]!)) return Number.NaN;
    if (Math.abs(values[i]!) > Math.abs(extreme)) extreme = values[i]!;
  }
  return decodeBf16(encodeBf16(extreme / -8)) || 1;
}

/** values [rows, cols] → panels; codes −8..7 to nearest even, stored with 8 added. */
export function encodeQ4(values: Values, cols: number, panels: Uint8Array): void {
  const rows = values.length / cols;
  const view = new DataView(panels.buffer, panels.byteOffset, panels.byteLength);
  const across = Math.ceil(cols / Q4_PANEL.columns);
  panels.fill(0x88);
  for (let row = 0; row < Math.ceil(rows / Q4_PANEL.rows) * Q4_PANEL.rows; row++) {
    for (let column = 0; column < across * Q4_PANEL.columns; column += Q4_TILE) {
      const count = row < rows ? Math.max(0, Math.min(Q4_TILE, cols - column)) : 0;
      const panel = panelAt(row, column, across);
      encodeQ4Tile(values, row * cols + column, count, panels, view, panel, row % 16, column % 64);
    }
  }
}

const panelAt = (row: number, column: number, across: number): number =>
  (Math.floor(row / Q4_PANEL.rows) * across + Math.floor(column / Q4_PANEL.columns)) * Q4_PANEL.bytes;

function encodeQ4Tile(
  values: Values,
  from: number,
  count: number,
  panels: Uint8Array,
  view: DataView,
  panel: number,
  row: number,
  column: number,
): void {
  const scale = q4Scale(values, from, count);
  view.setUint16(panel + q4ScaleAt(row, column), encodeBf16(scale), true);
  if (Number.isNaN(scale)) return;
  const first = panel + q4Byte(row, column);
  for (let i = 0; i < count; i++) {
    const code = Math.min(7, Math.max(-8, roundEven(Math.fround(values[from + i]! / scale))));
    const at = first + 64 * (i >> 3) + (i & 3);
    // Both halves of the byte are 8 to begin with; 8 ^ (8 + code) = code & 15.
    panels[at]! ^= (code & 15) << (i & 4);
  }
}

/** 1.5 · 2^52: added to a smaller number and taken away again, it leaves the nearest integer, the even one of two. */
const ROUNDER = 1.5 * 2 ** 52;
const roundEven = (x: number): number => x + ROUNDER - ROUNDER;

/** Row `row` of a q4 matrix: codes −8..7 [cols] and scales [ceil(cols/32)]. */
export function decodeQ4Row(
  panels: Uint8Array,
  row: number,
  cols: number,
): { codes: Float32Array; scales: Float32Array } {
  const across = Math.ceil(cols / Q4_PANEL.columns);
  const codes = new Float32Array(cols);
  for (let column = 0; column < cols; column++) {
    const at = panelAt(row, column, across) + q4Byte(row % 16, column % 64);
    codes[column] = ((panels[at]! >> (column & 4)) & 15) - 8;
  }
  const scales = Float32Array.from({ length: Math.ceil(cols / Q4_TILE) }, (_, tile) => {
    const column = tile * Q4_TILE;
    const at = panelAt(row, column, across) + q4ScaleAt(row % 16, column % 64);
    return decodeBf16(panels[at]! | (panels[at + 1]! << 8));
  });
  return { codes, scales };
}
