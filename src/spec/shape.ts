import type { ModelConfig } from './model.js';

/**
 * What arithmetic needs of a model, whatever family it is of: counts and sizes, nothing that runs. Models that the
 * engine runs have a `ModelConfig`; every model that is only planned for has a shape.
 */
export interface ModelShape {
  /** `model_type` of its `config.json`. */
  modelType: string;
  /** D. */
  hiddenSize: number;
  vocabSize: number;
  /** Decoder layers, MTP modules left out. */
  layers: number;
  /** Whether the output head is the embedding's table. */
  tiedEmbeddings: boolean;
  attention: AttentionShape;
  /** Width of a dense layer's MLP. */
  denseWidth: number;
  /** Layers at the beginning that have a dense MLP; all of them without experts. */
  denseLayers: number;
  experts: ExpertShape | null;
  /** MTP modules, each one more layer with a projection of [2D → D] [TR §2.2]. */
  mtpDepth: number;
  /** Longest context. */
  maxLength: number;
}

export interface AttentionShape {
  kind: 'mla' | 'mha' | 'gqa' | 'mqa';
  heads: number;
  /** Heads of keys and values; as many as of queries under MLA. */
  keyValueHeads: number;
  /** Values of one head's query and key, rotary ones included. */
  keyDepth: number;
  /** Those of them that are rotary and, under MLA, shared by all heads. */
  ropeDepth: number;
  valueDepth: number;
  /** d_c', null where queries have no latent; MLA only. */
  queryLatent: number | null;
  /** d_c; 0 without MLA. */
  latent: number;
  /** Biases of the query, key and value projections. */
  inputBias: boolean;
  /** Bias of the output projection. */
  outputBias: boolean;
  /** RMSNorm over each head's query and key. */
  headNorms: boolean;
}

export interface ExpertShape {
  routed: number;
  shared: number;
  perToken: number;
  /** Width of one expert's MLP. */
  width: number;
  /** Groups of experts, and how many a token may use; 1 of 1 where routing is free. */
  groups: number;
  groupsPerToken: number;
  /** A bias that steers the choice, one value an expert [TR §2.1.2]. */
  choiceBias: boolean;
  /** A gate of its own for the shared expert, D values (Qwen). */
  sharedGate: boolean;
}

/** The shape of a model that the engine runs. */
export function shapeOfConfig(c: ModelConfig): ModelShape {
  return {
    modelType: c.model_type,
    hiddenSize: c.hidden_size,
    vocabSize: c.vocab_size,
    layers: c.num_hidden_layers,
    tiedEmbeddings: c.tie_word_embeddings,
    attention: {
      kind: c.attention_kind,
      heads: c.num_attention_heads,
      keyValueHeads: c.num_key_value_heads,
      keyDepth: c.qk_nope_head_dim + c.qk_rope_head_dim,
      ropeDepth: c.qk_rope_head_dim,
      valueDepth: c.v_head_dim,
      queryLatent: c.q_lora_rank,
      latent: c.kv_lora_rank,
      inputBias: false,
      outputBias: false,
      headNorms: false,
    },
    denseWidth: c.intermediate_size,
    denseLayers: c.first_k_dense_replace,
    experts: {
      routed: c.n_routed_experts,
      shared: c.n_shared_experts,
      perToken: c.num_experts_per_tok,
      width: c.moe_intermediate_size,
      groups: c.n_group,
      groupsPerToken: c.topk_group,
      choiceBias: c.topk_method === 'noaux_tc',
      sharedGate: false,
    },
    mtpDepth: c.num_nextn_predict_layers,
    maxLength: c.max_position_embeddings,
  };
}

/** Whether a layer (MTP modules count on from `layers`) has experts. */
export const hasExperts = (shape: ModelShape, layer: number): boolean =>
  shape.experts !== null && layer >= shape.denseLayers;
