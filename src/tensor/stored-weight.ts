import type { WeightFormat } from '../spec/serving.js';

/** Weights that stay where they lie. Legend: a weight is G matrices [N, K]. */

/**
 * Rows of a matrix that lie together, in memory of a mapped file or of the backend. R rows, row-major:
 *
 * | format | codes                                        | scales                                                        |
 * | ------ | -------------------------------------------- | ------------------------------------------------------------- |
 * | fp32   | f32 [R, K]                                   |                                                               |
 * | bf16   | bf16 [R, K]                                  |                                                               |
 * | fp8    | E4M3 [R, K]                                  | f32 per 128×128 block of the tensor that holds the rows       |
 * | int8   | −127..127, two's complement [R, K]           | f32 [R, ceil(K/128)]                                          |
 * | q4     | panels [ceil(R/16), ceil(K/64), 576]         | in the panels                                                 |
 *
 * A q4 panel is 16 rows × 64 columns, columns and rows beyond the matrix being zero (code 8): 512 bytes of codes 0..15 for
 * −8..7 and 2 × 16 BF16 scales. Byte i (0..63) of line j (0..7) holds row ⌊i/4⌋, column 8j + i mod 4 in its low half and the
 * column 4 further in its high half. The first 16 scales are those of the rows for columns 0..31, the others for 32..63.
 */
export interface WeightPiece {
  readonly rows: number;
  /** Row of its tensor that the first row is; the blocks of fp8 count from the tensor's first. */
  readonly first: number;
  /** Bytes, at any alignment. */
  readonly codes: Uint8Array;
  readonly scales?: Uint8Array | undefined;
}

/** A weight as the backend's kernels read it. */
export interface StoredWeight {
  readonly format: WeightFormat;
  readonly groups: number;
  readonly n: number;
  readonly k: number;
  /** Bytes of codes and scales. */
  readonly bytes: number;
  /** Pieces of each group, top to bottom. */
  readonly pieces: readonly (readonly WeightPiece[])[];
  /** The backend's own. */
  readonly handle: unknown;
}
