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

/** Bytes of the scales that belong to rows first..first+rows of a tensor. */
function scaleBytes(format: WeightFormat, { rows, first }: WeightPiece, k: number): number {
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
