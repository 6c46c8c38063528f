import type { WeightFormat } from '../spec/serving.js';
import type { AttentionWeights, BlockRows, FeedForwardWeights } from './blocks.js';
import type { LatentPages } from './latent-pages.js';
import type { StoredWeight, WeightPiece } from './stored-weight.js';
import type { Tensor } from './tensor.js';

export type { StoredWeight, WeightPiece };

/**
 * The inference part of the op contract: weights that stay where they lie, and products with them.
 *
 * Legend: a weight is G matrices [N, K]; M tokens.
 */

export interface InferenceOps {
  /**
   * Bytes of a file, mapped where the system can: pages are read when they are touched and may be dropped again. Changes stay
   * private. @throws Error when the file is shorter than asked for
   */
  mapFile(path: string, position: number, bytes: number): ArrayBuffer;
  /** How many of these bytes of a mapped file are in memory now. */
  residentBytes(bytes: Uint8Array): number;
  /** These bytes of a mapped file are not needed for now. */
  forgetPages(bytes: Uint8Array): void;
  /**
   * values [R, K] in a format, in memory of its own: bf16 to nearest even; int8, q4 and fp8 as `numerics/weights.ts` and
   * `quantizeBlocks` (FP32 scales, blocks of 128×128 from the first row) have them.
   */
  encodeWeight(format: WeightFormat, values: Float32Array, k: number): WeightPiece;
  /** Makes a weight of pieces where they lie; all groups have the same number of rows. */
  storeWeight(format: WeightFormat, k: number, groups: readonly (readonly WeightPiece[])[]): StoredWeight;
  /**
   * y[m, :] (+)= x[m, :] · W_gᵀ for the rows m of each group g; x, y f32 or bf16, [M, K] and [M, N]. Rows
   * offsets[g]..offsets[g+1] belong to group g (i32 [G+1]); without offsets G = 1.
   *
   * Sums are FP32. fp32: x as it is; bf16, fp8: x may be rounded to BF16, as the unit takes it; int8, q4: x is quantised to −127..127 with
   * one FP32 scale per row and 128 columns (absmax / 127, to nearest even), products are summed exactly as integers
   * over 128 (q4: 32) columns, then scaled and added in FP32, columns in ascending order.
   *
   * A row of y depends on its row of x alone, bit for bit: not on M, its place, or the rows beside it.
   */
  project(x: Tensor, w: StoredWeight, y: Tensor, options?: { offsets?: Tensor; accumulate?: boolean }): void;
  /** Rows `ids` i32 [M] of a weight of one group → out f32 [M, K]: the lookup in an embedding's table. */
  readRows(w: StoredWeight, ids: Tensor, out: Tensor): void;
  /**
   * x f32 [M, D] += MLA of its norm, absorbed, the cache written on the way, in one call: for few tokens, where calls and barriers
   * count. Same bits as the composition of single ops in `infer/compose.ts`, which stands in where a backend has none.
   */
  attentionBlock?(x: Tensor, w: AttentionWeights, pages: LatentPages, at: BlockRows): void;
  /** x f32 [M, D] += FFN or MoE of its norm, likewise. */
  feedForwardBlock?(x: Tensor, w: FeedForwardWeights): void;
  /**
   * normed f32 [M, K] = [RMSNorm(x_1); …; RMSNorm(x_P)], parts x_p f32 side by side, each with its norm; y f32 [wanted, N] = its rows
   * `wanted` (i32) · Wᵀ: likewise, before the output head and at the entry of an MTP module [TR §2.2].
   */
  normProject?(
    parts: readonly Tensor[],
    norms: readonly Tensor[],
    eps: number,
    w: StoredWeight,
    wanted: Tensor,
    normed: Tensor,
    y: Tensor,
  ): void;
}
