import type { LatentRows } from './latent-pages.js';
import type { RouterShape } from './router.js';
import type { StoredWeight } from './stored-weight.js';
import type { Tensor } from './tensor.js';

/**
 * The two blocks of a decoder layer as inference computes them: weights, and rows.
 *
 * Legend: M tokens, D hidden size, H heads; d_c' query latent, d_c latent, d_h / d_h^R / d_v non-rotary, rotary and value head
 * sizes; I width of an MLP, E routed experts. Norms are f32.
 */

/** MLA [TR §2.1.1; V2 §2.1]. */
export interface AttentionWeights {
  /** H. */
  readonly heads: number;
  /** d_h. */
  readonly nope: number;
  /** d_h^R. */
  readonly rope: number;
  /** d_v. */
  readonly v: number;
  /** d_c. */
  readonly latent: number;
  /** Softmax scale. */
  readonly scale: number;
  /** Epsilon of the input norm. */
  readonly eps: number;
  /** How rotary pairs lie, as in `RopeLayout`. */
  readonly interleaved: boolean;
  /** f32 [positions, d_h^R/2, 2]. */
  readonly ropeTable: Tensor;
  /** [D]. */
  readonly inputNorm: Tensor;
  /** [W^DQ; W^DKV; W^KR] [d_c' + d_c + d_h^R, D]; without a query latent W^Q stands first [H·(d_h + d_h^R) + d_c + d_h^R, D]. */
  readonly down: StoredWeight;
  /** Norm [d_c'] and W^UQ, per head [q_nope | q_rope]: [H·(d_h + d_h^R), d_c']. */
  readonly query: { readonly norm: Tensor; readonly up: StoredWeight } | undefined;
  /** [d_c]. */
  readonly latentNorm: Tensor;
  /** W^UK turned, per head [d_c, d_h]: H groups. */
  readonly keyUp: StoredWeight;
  /** W^UV, per head [d_v, d_c]: H groups. */
  readonly valueUp: StoredWeight;
  /** kv_b_proj, per head [W^UK; W^UV]: [H·(d_h + d_v), d_c]. */
  readonly keyValueUp: StoredWeight;
  /** W^O [D, H·d_v]. */
  readonly output: StoredWeight;
}

/** SwiGLU network, or one per group. */
export interface SwigluWeights {
  /** [gate; up] [2I, D]. */
  readonly gateUp: StoredWeight;
  /** [D, I]. */
  readonly down: StoredWeight;
}

/** Feed-forward block: dense, or DeepSeekMoE [TR §2.1.2]. */
export interface FeedForwardWeights {
  /** [D]. */
  readonly norm: Tensor;
  readonly eps: number;
  readonly dense: SwigluWeights | undefined;
  readonly experts: ExpertWeights | undefined;
}

export interface ExpertWeights {
  readonly shape: RouterShape;
  /** [E, D]. */
  readonly gate: StoredWeight;
  /** f32 [E]; zeros where the model has none. */
  readonly bias: Tensor;
  /** E groups; over ranks those of this one. */
  readonly routed: SwigluWeights;
  readonly shared: SwigluWeights | undefined;
}

/** Rows of a step, all attending to the cache in the absorbed form. */
export interface BlockRows {
  /** i32 [M]. */
  readonly positions: Tensor;
  /** i32 [M]: where the cache keeps each token. */
  readonly slots: Tensor;
  readonly rows: LatentRows;
}
