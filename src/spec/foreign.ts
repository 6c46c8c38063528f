import { z } from 'zod';
import { UserError } from '../errors.js';
import { describeIssues } from './model.js';
import type { AttentionShape, ExpertShape, ModelShape } from './shape.js';

/**
 * Reads `config.json` of families that the engine does not run but the planner knows. Fields that count are checked; others
 * are let through unless their name says that they might count (`COUNTS`), so that an unknown size is an error, not a wrong
 * total.
 */
const positive = z.int().positive();
const natural = z.int().nonnegative();

const common = {
  hidden_size: positive,
  vocab_size: positive,
  num_hidden_layers: positive,
  num_attention_heads: positive,
  num_key_value_heads: positive.nullish(),
  head_dim: positive.nullish(),
  intermediate_size: positive,
  max_position_embeddings: positive,
  tie_word_embeddings: z.boolean().default(false),
  attention_bias: z.boolean().nullish(),
  mlp_bias: z.literal(false, 'must be false: biases in the MLP are not counted').nullish(),
};

const experts = {
  num_experts_per_tok: positive,
  moe_intermediate_size: positive.nullish(),
  num_experts: positive.nullish(),
  num_local_experts: positive.nullish(),
  n_routed_experts: positive.nullish(),
  n_shared_experts: natural.nullish(),
  shared_expert_intermediate_size: natural.nullish(),
  first_k_dense_replace: natural.default(0),
  n_group: positive.nullish(),
  topk_group: positive.nullish(),
  use_qk_norm: z.boolean().nullish(),
  num_nextn_predict_layers: natural.default(0),
  decoder_sparse_step: z.literal(1, 'must be 1: every layer has experts').nullish(),
  mlp_only_layers: z.array(natural).max(0, 'must be empty: every layer has experts').nullish(),
};

const denseFields = z.looseObject(common);
const moeFields = z.looseObject({ ...common, ...experts });
type Dense = z.infer<typeof denseFields>;
type Moe = z.infer<typeof moeFields>;

/** What families differ in besides their fields. */
interface Family {
  moe: boolean;
  /** Biases on queries, keys and values: always, never, or as `attention_bias` says, which then biases the output too. */
  bias: 'input' | 'none' | 'field' | 'field-input';
  headNorms: boolean;
  choiceBias?: boolean;
}

const FAMILIES: Record<string, Family> = {
  llama: { moe: false, bias: 'field', headNorms: false },
  mistral: { moe: false, bias: 'none', headNorms: false },
  qwen2: { moe: false, bias: 'input', headNorms: false },
  qwen3: { moe: false, bias: 'field', headNorms: true },
  mixtral: { moe: true, bias: 'none', headNorms: false },
  qwen2_moe: { moe: true, bias: 'input', headNorms: false },
  qwen3_moe: { moe: true, bias: 'field', headNorms: true },
  glm4_moe: { moe: true, bias: 'field-input', headNorms: false, choiceBias: true },
};

/** A name that an unread field must not have. */
const COUNTS = /(_size|_dim|_rank|_heads|_experts|_layers|_freq)$|^(num|n)_|experts/;
/** Names of that kind that count for nothing. */
const HARMLESS = new Set([
  'chunk_size_feed_forward',
  'max_window_layers',
  'num_labels',
  'num_beams',
  'num_return_sequences',
  'n_positions',
  'output_router_logits',
  'rotary_dim',
]);

/** @throws UserError naming file and field */
export function parseForeignShape(json: Record<string, unknown>, source: string): ModelShape {
  const type = String(json.model_type);
  const family = FAMILIES[type];
  if (!family) {
    throw new UserError(
      `${source}: model_type is ${JSON.stringify(json.model_type)}; the planner knows deepseek_v3, deepseek_v2, ` +
        `kimi_k2, ${Object.keys(FAMILIES).join(', ')}`,
    );
  }
  const parsed = (family.moe ? moeFields : denseFields).safeParse(json);
  if (!parsed.success) throw new UserError(`${source}: ${describeIssues(parsed.error)}`);
  const known = new Set([...Object.keys(common), ...(family.moe ? Object.keys(experts) : [])]);
  const strange = Object.keys(json).find(
    (key) => !known.has(key) && !HARMLESS.has(key) && json[key] !== null && COUNTS.test(key),
  );
  if (strange) {
    throw new UserError(
      `${source}: field "${strange}" might change the count and is not known of ${type} models; remove it or correct its name`,
    );
  }
  return family.moe
    ? moeShape(type, parsed.data as Moe, family, source)
    : denseShape(type, parsed.data, family, source);
}

function denseShape(type: string, c: Dense, family: Family, source: string): ModelShape {
  return {
    modelType: type,
    hiddenSize: c.hidden_size,
    vocabSize: c.vocab_size,
    layers: c.num_hidden_layers,
    tiedEmbeddings: c.tie_word_embeddings,
    attention: attentionShape(c, family, source),
    denseWidth: c.intermediate_size,
    denseLayers: c.num_hidden_layers,
    experts: null,
    mtpDepth: 0,
    maxLength: c.max_position_embeddings,
  };
}

function moeShape(type: string, c: Moe, family: Family, source: string): ModelShape {
  const dense = denseShape(type, c, family, source);
  const headNorms = c.use_qk_norm ?? family.headNorms;
  return {
    ...dense,
    attention: { ...dense.attention, headNorms },
    denseLayers: c.first_k_dense_replace,
    experts: expertShape(c, family, source),
    mtpDepth: c.num_nextn_predict_layers,
  };
}

function attentionShape(c: Dense, { bias, headNorms }: Family, source: string): AttentionShape {
  const heads = c.num_attention_heads;
  const groups = c.num_key_value_heads ?? heads;
  if (heads % groups !== 0) {
    throw new UserError(
      `${source}: num_key_value_heads (${groups}) must divide num_attention_heads (${heads})`,
    );
  }
  const depth = c.head_dim ?? c.hidden_size / heads;
  if (!Number.isInteger(depth)) {
    throw new UserError(
      `${source}: num_attention_heads (${heads}) must divide hidden_size (${c.hidden_size})`,
    );
  }
  const given = c.attention_bias ?? false;
  return {
    kind: groups === heads ? 'mha' : groups === 1 ? 'mqa' : 'gqa',
    heads,
    keyValueHeads: groups,
    keyDepth: depth,
    ropeDepth: depth,
    valueDepth: depth,
    queryLatent: null,
    latent: 0,
    inputBias: bias === 'input' || (bias !== 'none' && given),
    outputBias: bias === 'field' && given,
    headNorms,
  };
}

function expertShape(c: Moe, { choiceBias = false }: Family, source: string): ExpertShape {
  const routed = c.n_routed_experts ?? c.num_experts ?? c.num_local_experts;
  if (!routed) throw new UserError(`${source}: no field says how many experts there are (num_experts)`);
  if (c.num_experts_per_tok > routed) {
    throw new UserError(
      `${source}: num_experts_per_tok (${c.num_experts_per_tok}) exceeds the ${routed} experts`,
    );
  }
  const width = c.moe_intermediate_size ?? c.intermediate_size;
  const sharedWidth = c.shared_expert_intermediate_size ?? 0;
  return {
    routed,
    shared: c.n_shared_experts ?? sharedWidth / width,
    perToken: c.num_experts_per_tok,
    width,
    groups: c.n_group ?? 1,
    groupsPerToken: c.topk_group ?? 1,
    choiceBias,
    sharedGate: sharedWidth > 0,
  };
}
