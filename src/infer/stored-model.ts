import { routerShape } from '../model/moe.js';
import { ropeTable, softmaxScale } from '../model/rope.js';
import { isMoeLayer, type ModelConfig } from '../spec/model.js';
import type { WeightFormat } from '../spec/serving.js';
import type { AttentionWeights, ExpertWeights, FeedForwardWeights, SwigluWeights } from '../tensor/blocks.js';
import type { StoredWeight, WeightPiece } from '../tensor/inference.js';
import { Tensor } from '../tensor/tensor.js';
import type { ShardedExperts } from './sharded-experts.js';

/**
 * Where a model's weights come from. Names are those of `model/parameters.ts`; matrices come in the format that the
 * source keeps them in.
 */
export interface WeightSource {
  readonly config: ModelConfig;
  /** Format of most matrices. */
  readonly format: WeightFormat;
  /** Matrices of one width stacked, [Σ N, K]. */
  matrix(...names: string[]): StoredWeight;
  /**
   * A parameter [G, N, K], or of its groups those in `which`, in that order.
   * @param held pieces of groups that need not be read again
   */
  groups(
    name: string,
    which?: ArrayLike<number>,
    held?: ReadonlyMap<number, readonly WeightPiece[]>,
  ): StoredWeight;
  /** Rows `from`..`from + count` of each of `groups` equal parts of a matrix: G × [count, K]. */
  slices(name: string, groups: number, from: number, count: number): StoredWeight;
  /** The same, each turned: G × [K, count]. */
  turnedSlices(name: string, groups: number, from: number, count: number): StoredWeight;
  /** f32. */
  vector(name: string): Tensor;
  has(name: string): boolean;
}

export interface LayerWeights {
  attention: AttentionWeights;
  feedForward: FeedForwardWeights;
  /** Where the layer's experts are spread over ranks. */
  sharded?: ShardedExperts | undefined;
}

/** A module of Multi-Token Prediction [TR §2.2]. */
export interface MtpWeights {
  layer: LayerWeights;
  /** enorm and hnorm [D]. */
  embeddingNorm: Tensor;
  hiddenNorm: Tensor;
  /** eh_proj [D, 2D]. */
  projection: StoredWeight;
  /** shared_head.norm [D]. */
  norm: Tensor;
}

/** The weights of a model as inference uses them. */
export interface StoredModel {
  readonly config: ModelConfig;
  readonly format: WeightFormat;
  /** [V, D]. */
  readonly embedding: StoredWeight;
  readonly layers: readonly LayerWeights[];
  /** [D]. */
  readonly norm: Tensor;
  /** [V, D]. */
  readonly head: StoredWeight;
  /** The first module, where it is wanted and there. */
  readonly mtp: MtpWeights | undefined;
}

/** What spreads experts over ranks. */
export interface ExpertSharding {
  /** Routed experts of a layer that this rank holds. */
  readonly own: ArrayLike<number>;
  /** Takes a layer's weights, which hold those alone. */
  shard(layer: number, experts: ExpertWeights): ShardedExperts;
}

/**
 * @param mtp whether to take the MTP module along
 * @param sharding where this process holds some of the experts only
 */
export function storedModel(source: WeightSource, mtp: boolean, sharding?: ExpertSharding): StoredModel {
  const { config, format } = source;
  const table = config.qk_rope_head_dim > 0 ? ropeTable(config, config.max_position_embeddings) : NO_ROPE;
  const layer = (l: number): LayerWeights => {
    const attention = attentionWeights(source, l, table);
    const feedForward = feedForwardWeights(source, l, sharding?.own);
    const { experts } = feedForward;
    return { attention, feedForward, sharded: experts && sharding?.shard(l, experts) };
  };
  const embedding = source.matrix('model.embed_tokens.weight');
  return {
    config,
    format,
    embedding,
    layers: Array.from({ length: config.num_hidden_layers }, (_, l) => layer(l)),
    norm: source.vector('model.norm.weight'),
    head: config.tie_word_embeddings ? embedding : source.matrix('lm_head.weight'),
    mtp: mtp && config.num_nextn_predict_layers > 0 ? mtpWeights(source, layer) : undefined,
  };
}

/** Every stored weight once. */
export function weightsOf(model: StoredModel): StoredWeight[] {
  const layers = [...model.layers, ...(model.mtp ? [model.mtp.layer] : [])];
  const all = layers.flatMap(({ attention: a, feedForward: { dense, experts } }) => [
    a.down,
    a.query?.up,
    a.keyUp,
    a.keyValueUp,
    a.output,
    ...[dense, experts?.routed, experts?.shared].flatMap((w) => [w?.gateUp, w?.down]),
    experts?.gate,
  ]);
  const found = [model.embedding, model.head, model.mtp?.projection, ...all].filter((w) => w !== undefined);
  return [...new Set(found)];
}

const NO_ROPE = Tensor.zeros([0, 0, 2], 'f32');

function attentionWeights(source: WeightSource, l: number, table: Tensor): AttentionWeights {
  const { config: c } = source;
  const prefix = `model.layers.${l}.self_attn.`;
  const { num_attention_heads: heads, qk_nope_head_dim: nope, v_head_dim: v } = c;
  const low = c.q_lora_rank !== null;
  const keyValue = `${prefix}kv_b_proj.weight`;
  return {
    heads,
    nope,
    v,
    rope: c.qk_rope_head_dim,
    latent: c.kv_lora_rank,
    scale: softmaxScale(c),
    eps: c.rms_norm_eps,
    interleaved: c.rope_interleave,
    ropeTable: table,
    inputNorm: source.vector(`model.layers.${l}.input_layernorm.weight`),
    down: source.matrix(`${prefix}${low ? 'q_a' : 'q'}_proj.weight`, `${prefix}kv_a_proj_with_mqa.weight`),
    query: low
      ? {
          norm: source.vector(`${prefix}q_a_layernorm.weight`),
          up: source.matrix(`${prefix}q_b_proj.weight`),
        }
      : undefined,
    latentNorm: source.vector(`${prefix}kv_a_layernorm.weight`),
    keyUp: source.turnedSlices(keyValue, heads, 0, nope),
    valueUp: source.slices(keyValue, heads, nope, v),
    keyValueUp: source.matrix(keyValue),
    output: source.matrix(`${prefix}o_proj.weight`),
  };
}

function feedForwardWeights(
  source: WeightSource,
  l: number,
  own: ArrayLike<number> | undefined,
): FeedForwardWeights {
  const { config } = source;
  const prefix = `model.layers.${l}.`;
  const moe = isMoeLayer(config, l);
  return {
    norm: source.vector(`${prefix}post_attention_layernorm.weight`),
    eps: config.rms_norm_eps,
    dense: moe ? undefined : swiglu(source, `${prefix}mlp.`),
    experts: moe ? expertWeights(source, `${prefix}mlp.`, own) : undefined,
  };
}

function expertWeights(
  source: WeightSource,
  prefix: string,
  own: ArrayLike<number> | undefined,
): ExpertWeights {
  const { config } = source;
  const bias = `${prefix}gate.e_score_correction_bias`;
  return {
    shape: routerShape(config),
    gate: source.matrix(`${prefix}gate.weight`),
    bias: source.has(bias) ? source.vector(bias) : Tensor.zeros([config.n_routed_experts], 'f32'),
    routed: {
      gateUp: source.groups(`${prefix}experts.gate_up_proj`, own),
      down: source.groups(`${prefix}experts.down_proj`, own),
    },
    shared: config.n_shared_experts > 0 ? swiglu(source, `${prefix}shared_experts.`) : undefined,
  };
}

const swiglu = (source: WeightSource, prefix: string): SwigluWeights => ({
  gateUp: source.matrix(`${prefix}gate_up_proj.weight`),
  down: source.matrix(`${prefix}down_proj.weight`),
});

function mtpWeights(source: WeightSource, layer: (l: number) => LayerWeights): MtpWeights {
  const l = source.config.num_hidden_layers;
  const prefix = `model.layers.${l}.`;
  return {
    layer: layer(l),
    embeddingNorm: source.vector(`${prefix}enorm.weight`),
    hiddenNorm: source.vector(`${prefix}hnorm.weight`),
    projection: source.matrix(`${prefix}eh_proj.weight`),
    norm: source.vector(`${prefix}shared_head.norm.weight`),
  };
}
