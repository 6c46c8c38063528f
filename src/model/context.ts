import type { ModelConfig } from '../spec/model.js';
import type { Recipe } from '../spec/precision.js';
import type { Parameter } from '../tensor/parameter.js';
import type { Tape } from '../tensor/tape.js';
import type { Tensor } from '../tensor/tensor.js';
import type { ExpertExchange } from './exchange.js';

/** What is computed again in the backward pass instead of kept [TR §3.2.3]. */
export interface Recompute {
  rmsNorm: boolean;
  mlaUpProjection: boolean;
}

/** Token positions of a batch of T tokens; every tensor is i32. */
export interface Layout {
  /** [T] position of each token within its segment. */
  positions: Tensor;
  /** [S+1] row bounds of the segments that attention is confined to. */
  segments: Tensor;
  /** [B+1] row bounds of the sequences over which expert load is balanced. */
  sequences: Tensor;
}

/** Weights and buffers of one prefix, e.g. `model.layers.3.`. */
export interface Weights {
  /** Weight `name` under this prefix. */
  get(name: string): Parameter;
  /** Weight `name` where the architecture has it. */
  find(name: string): Parameter | undefined;
}

/** What every layer of one forward pass shares. */
export interface Context {
  tape: Tape;
  config: ModelConfig;
  recipe: Recipe;
  recompute: Recompute;
  layout: Layout;
  /** f32 [positions, d_h^R/2, 2]. */
  ropeTable: Tensor;
  softmaxScale: number;
  /** How tokens reach routed experts of other processes; all experts are here without. */
  exchange: ExpertExchange | undefined;
  /** Which of the passes that overlap this is, from 0. */
  lane: number;
}

/** Passes that may overlap: while one computes, the other's messages fly. */
export const LANES = 2;

/** State of one router: its bias, and what the last passes saw. */
export interface RouterState {
  /** f32 [E]: b_i, added for the choice of experts only [TR §2.1.2]. */
  bias: Tensor;
  /** Of the last pass on each lane. */
  seen: readonly RouterView[];
  /** α × loss scale of the sequence-wise balance loss. */
  balanceFactor: number;
}

/** What a router saw in one pass. */
export interface RouterView {
  /** i32 [E]: tokens that chose each expert. */
  load: Tensor;
  /** f32 [1]: Σ f_e·P_e, of backward. */
  balanceLoss: Tensor;
}
