import { Q4_PANEL } from '../numerics/weights.js';
import type { WeightFormat } from '../spec/serving.js';
import type { StoredWeight, WeightPiece } from '../tensor/inference.js';

/** Bytes of one row of codes, or of one panel row of q4. */
export function codeRowBytes(format: WeightFormat, k: number): number {
  switch (format) {
    case 'fp32':
      return 4 * k;
    case 'bf16':
      return 2 * k;
    case 'q4':
      return Math.ceil(k / Q4_PANEL.columns) * Q4_PANEL.bytes;
    default:
      return k;
  }
}

/** Bytes of the codes of `rows` rows. */
export const codeBytes = (format: WeightFormat, rows: number, k: number): number =>
  (format === 'q4' ? Math.ceil(rows / Q4_PANEL.rows) : rows) * codeRowBytes(format, k);

/** A piece of `rows` rows with memory for its codes and scales. */
export function allocatePiece(format: WeightFormat, rows: number, k: number): AllocatedPiece {
  const codes = new Uint8Array(codeBytes(format, rows, k));
  const scales = new Float32Array(scaleBytes(format, { rows, first: 0 }, k) / 4);
  const piece = { rows, first: 0, codes };
  return {
    piece: scales.length > 0 ? { ...piece, scales: new Uint8Array(scales.buffer) } : piece,
    codes,
    scales,
  };
}

/** FP32 values as they lie. */
export const fp32Piece = (values: Float32Array, k: number): WeightPiece => ({
  rows: values.length / k,
  first: 0,
  codes: new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
});

export interface AllocatedPiece {
  piece: WeightPiece;
  codes: Uint8Array;
  /** f32; empty where the format has none beside the codes. */
  scales: Float32Array;
}

/** Bytes of the scales that belong to rows first..first+rows of a tensor. */
function scaleBytes(
  format: WeightFormat,
  { rows, first }: Pick<WeightPiece, 'rows' | 'first'>,
  k: number,
): number {
  const tiles = Math.ceil(k / 128);
  if (format === 'int8') return 4 * tiles * rows;
  if (format !== 'fp8') return 0;
  return 4 * tiles * (Math.ceil((first + rows) / 128) - Math.floor(first / 128));
}

/** What both backends tell of a weight. @throws Error where groups differ in their number of rows */
export function describeWeight(
  format: WeightFormat,
  k: number,
  pieces: readonly (readonly WeightPiece[])[],
): Omit<StoredWeight, 'handle'> {
  const rows = pieces.map((group) => group.reduce((sum, piece) => sum + piece.rows, 0));
  const n = rows[0] ?? 0;
  if (n < 1 || rows.some((count) => count !== n)) throw new Error(`storeWeight: groups have ${rows} rows`);
  const bytes = pieces
    .flat()
    .reduce((sum, piece) => sum + codeBytes(format, piece.rows, k) + scaleBytes(format, piece, k), 0);
  return { format, groups: pieces.length, n, k, bytes, pieces };
}
