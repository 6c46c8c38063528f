import type { ModelConfig } from '../spec/model.js';
import { type ModelShape, shapeOfConfig } from '../spec/shape.js';
import { attentionWeights } from './parameters.js';

/**
 * Floating-point operations per token; one multiply-add counts as two. GEMMs and attention only, as is usual for model FLOPs
 * utilisation [arXiv 2204.02311 appendix B]: no norms, activations, softmax, embedding look-ups or recomputation.
 */
export interface FlopsPerToken {
  /** Products with weights. */
  matmul: number;
  /** Products between tokens. */
  attention: number;
}

/** Forward operations of one token by part, so that a sum can be read. */
export interface FlopsByPart {
  attentionProjections: number;
  /** Scores and values, between tokens. */
  attentionCore: number;
  denseMlp: number;
  sharedExperts: number;
  routedExperts: number;
  gate: number;
  head: number;
  mtp: number;
}

/** Keys that a token of a sequence meets on average: half of the sequence under the causal mask, all of it without. */
export const meanKeys = (length: number, causal: boolean): number => (causal ? length / 2 : length);

/**
 * Forward pass, prefill or training, of the main model and `mtpDepth` MTP modules.
 * @param keys that one token attends to, on average
 */
export function forwardFlopsByPart(shape: ModelShape, keys: number, mtpDepth = shape.mtpDepth): FlopsByPart {
  const { hiddenSize: D, experts, layers } = shape;
  const moeLayers = experts ? layers - shape.denseLayers : 0;
  const head = 2 * shape.vocabSize * D;
  const projections = 2 * attentionWeights(shape);
  const core = 2 * pairWeights(shape) * keys;
  const expert = experts ? 2 * 3 * D * experts.width : 0;
  const gate = experts ? 2 * D * experts.routed : 0;
  const dense = 2 * 3 * D * shape.denseWidth;
  const mlp = experts ? expert * (experts.perToken + experts.shared) + gate : dense;
  return {
    attentionProjections: layers * projections,
    attentionCore: layers * core,
    denseMlp: (layers - moeLayers) * dense,
    sharedExperts: moeLayers * expert * (experts?.shared ?? 0),
    routedExperts: moeLayers * expert * (experts?.perToken ?? 0),
    gate: moeLayers * gate,
    head,
    mtp: mtpDepth * (projections + core + mlp + head + 2 * 2 * D * D),
  };
}

/** Products of one query with one key and its value, all heads. */
const pairWeights = ({ attention: a }: ModelShape): number => a.heads * (a.keyDepth + a.valueDepth);

export const sumFlops = (parts: FlopsByPart): number => Object.values(parts).reduce((n, part) => n + part, 0);

/**
 * One token in decoding after `context` others. MLA works on the latent itself: scores and values are products with d_c + d_h^R
 * and d_c values of every cached token, and the up-projections are absorbed into query and output [V2 §2.1.2].
 */
export function decodeFlopsByPart(shape: ModelShape, context: number, mtpDepth = 0): FlopsByPart {
  const parts = forwardFlopsByPart(shape, context, mtpDepth);
  const { attention: a } = shape;
  if (a.kind !== 'mla') return parts;
  return { ...parts, attentionCore: shape.layers * 2 * a.heads * (2 * a.latent + a.ropeDepth) * context };
}

/** Forward and backward: the backward pass does twice the forward's products. */
export const trainingFlopsPerToken = (
  shape: ModelShape,
  length: number,
  causal: boolean,
  mtpDepth = shape.mtpDepth,
): number => 3 * sumFlops(forwardFlopsByPart(shape, meanKeys(length, causal), mtpDepth));

/** Forward pass of a model that the engine runs, over sequences of `length` tokens, causal. */
export function forwardFlops(
  c: ModelConfig,
  length: number,
  mtpDepth = c.num_nextn_predict_layers,
): FlopsPerToken {
  const shape = shapeOfConfig(c);
  const total = sumFlops(forwardFlopsByPart(shape, meanKeys(length, true), mtpDepth));
  const matmul = sumFlops(forwardFlopsByPart(shape, 0, mtpDepth));
  return { matmul, attention: total - matmul };
}

/** Forward and backward of a model that the engine runs, causal. */
export const trainingFlops = (
  c: ModelConfig,
  length: number,
  mtpDepth = c.num_nextn_predict_layers,
): number => trainingFlopsPerToken(shapeOfConfig(c), length, true, mtpDepth);
