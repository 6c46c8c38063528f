import { z } from 'zod';
import { UserError } from '../errors.js';

/**
 * The model description: Hugging Face's `config.json` of the types `deepseek_v3` and `deepseek_v2`, with its
 * field names. Fields that only other software reads are listed, so that a misspelt one is an error.
 */
const positive = z.int().positive();
const natural = z.int().nonnegative();

/** YaRN or plain rotary embedding, as `rope_scaling` (older files) or `rope_parameters` (newer ones). */
const ropeScaling = z.strictObject({
  type: z.enum(['yarn', 'default']).optional(),
  rope_type: z.enum(['yarn', 'default']).optional(),
  rope_theta: z.number().positive().optional(),
  factor: z.number().min(1).optional(),
  original_max_position_embeddings: positive.optional(),
  beta_fast: z.number().positive().optional(),
  beta_slow: z.number().positive().optional(),
  mscale: z.number().optional(),
  mscale_all_dim: z.number().optional(),
  attention_factor: z.number().positive().optional(),
  truncate: z.boolean().optional(),
});

const blockQuantization = z.strictObject({
  quant_method: z.literal('fp8'),
  fmt: z.literal('e4m3').optional(),
  activation_scheme: z.enum(['dynamic']).optional(),
  scale_fmt: z.string().optional(),
  weight_block_size: z.tuple([positive, positive]),
  modules_to_not_convert: z.array(z.string()).nullish(),
});
/** Weights as `fathom convert` writes them for inference (model/stored-matrix.ts); other software does not know them. */
const ownQuantization = z.strictObject({
  quant_method: z.literal('fathom'),
  weight_format: z.enum(['int8', 'q4']),
});
const quantizationConfig = z.discriminatedUnion('quant_method', [blockQuantization, ownQuantization]);

/** Accepted and carried through unread: what transformers and the original repositories write beside the model. */
const passengers = {
  architectures: z.array(z.string()).nullish(),
  auto_map: z.record(z.string(), z.string()).nullish(),
  attention_dropout: z.number().min(0).max(0, 'must be 0: dropout is not supported').nullish(),
  aux_loss_alpha: z.number().nullish(),
  bos_token_id: natural.nullish(),
  chunk_size_feed_forward: z.int().nullish(),
  dtype: z.string().nullish(),
  torch_dtype: z.string().nullish(),
  eos_token_id: z.union([natural, z.array(natural)]).nullish(),
  ep_size: natural.nullish(),
  head_dim: positive.nullish(),
  qk_head_dim: positive.nullish(),
  id2label: z.record(z.string(), z.string()).nullish(),
  label2id: z.record(z.string(), z.number()).nullish(),
  is_encoder_decoder: z.literal(false).nullish(),
  output_attentions: z.boolean().nullish(),
  output_hidden_states: z.boolean().nullish(),
  output_router_logits: z.boolean().nullish(),
  pad_token_id: z.int().nullish(),
  pretraining_tp: natural.nullish(),
  problem_type: z.string().nullish(),
  return_dict: z.boolean().nullish(),
  seq_aux: z.boolean().nullish(),
  transformers_version: z.string().nullish(),
  use_cache: z.boolean().nullish(),
  router_aux_loss_coef: z.number().nullish(),
  _name_or_path: z.string().nullish(),
};

/**
 * Field of our own, `attention_kind`, to compare MLA with what it replaces [V2 §2.1]: multi-head, grouped-query and
 * multi-query attention. Head sizes are those of the fields that MLA has; transformers knows DeepSeek models with MLA only.
 */
export const ATTENTION_KINDS = ['mla', 'mha', 'gqa', 'mqa'] as const;
export type AttentionKind = (typeof ATTENTION_KINDS)[number];

const fields = z.strictObject({
  ...passengers,
  model_type: z.enum(['deepseek_v3', 'deepseek_v2']),
  vocab_size: positive,
  hidden_size: positive,
  intermediate_size: positive,
  moe_intermediate_size: positive,
  num_hidden_layers: positive,
  num_nextn_predict_layers: natural.default(0),
  num_mtp_layers: natural.optional(),
  num_attention_heads: positive,
  num_key_value_heads: positive.nullish(),
  attention_kind: z.enum(ATTENTION_KINDS).default('mla'),
  n_shared_experts: natural.nullish(),
  n_routed_experts: positive,
  num_local_experts: positive.optional(),
  num_experts: positive.optional(),
  num_experts_per_tok: positive,
  routed_scaling_factor: z.number().positive().default(1),
  kv_lora_rank: positive.nullish(),
  q_lora_rank: positive.nullish(),
  qk_nope_head_dim: natural,
  qk_rope_head_dim: positive,
  v_head_dim: positive,
  n_group: positive.nullish(),
  topk_group: positive.nullish(),
  topk_method: z.enum(['noaux_tc', 'greedy', 'group_limited_greedy']).nullish(),
  scoring_func: z.enum(['sigmoid', 'softmax']).nullish(),
  norm_topk_prob: z.boolean().nullish(),
  first_k_dense_replace: natural.default(0),
  moe_layer_freq: z.literal(1, 'must be 1: every layer after first_k_dense_replace has experts').nullish(),
  hidden_act: z.literal('silu').default('silu'),
  max_position_embeddings: positive,
  initializer_range: z.number().positive().default(0.02),
  rms_norm_eps: z.number().positive().default(1e-6),
  tie_word_embeddings: z.boolean().default(false),
  rope_theta: z.number().positive().optional(),
  rope_scaling: ropeScaling.nullish(),
  rope_parameters: ropeScaling.nullish(),
  rope_interleave: z.boolean().nullish(),
  attention_bias: z.literal(false, 'must be false: biases in attention are not supported').nullish(),
  mlp_bias: z.literal(false, 'must be false: biases in the MLP are not supported').nullish(),
  quantization_config: quantizationConfig.nullish(),
});

/** `config.json` as read, all fields. */
export type HuggingFaceConfig = z.infer<typeof fields>;

/** YaRN context extension [arXiv 2309.00071], with DeepSeek's mscale. */
export interface Yarn {
  factor: number;
  original_max_position_embeddings: number;
  beta_fast: number;
  beta_slow: number;
  mscale: number;
  mscale_all_dim: number;
  attention_factor: number | undefined;
  truncate: boolean;
}

/** How quantised weights are stored: DeepSeek's FP8 blocks, or a format of fathom's own. */
export type Quantization =
  | { method: 'fp8'; weight_block_size: readonly [number, number] }
  | { method: 'int8' | 'q4' };

/** The model's own fields, defaults of its type filled in; nothing optional is left open. */
export interface ModelConfig {
  model_type: 'deepseek_v3' | 'deepseek_v2';
  vocab_size: number;
  hidden_size: number;
  intermediate_size: number;
  moe_intermediate_size: number;
  num_hidden_layers: number;
  num_nextn_predict_layers: number;
  num_attention_heads: number;
  attention_kind: AttentionKind;
  /** Heads of keys and values; as many as of queries under MLA. */
  num_key_value_heads: number;
  n_shared_experts: number;
  n_routed_experts: number;
  num_experts_per_tok: number;
  routed_scaling_factor: number;
  /** 0 without MLA. */
  kv_lora_rank: number;
  q_lora_rank: number | null;
  qk_nope_head_dim: number;
  qk_rope_head_dim: number;
  v_head_dim: number;
  n_group: number;
  topk_group: number;
  topk_method: 'noaux_tc' | 'greedy' | 'group_limited_greedy';
  scoring_func: 'sigmoid' | 'softmax';
  norm_topk_prob: boolean;
  first_k_dense_replace: number;
  max_position_embeddings: number;
  initializer_range: number;
  rms_norm_eps: number;
  tie_word_embeddings: boolean;
  rope_theta: number;
  yarn: Yarn | null;
  rope_interleave: boolean;
  bos_token_id: number | null;
  eos_token_id: number | null;
  quantization: Quantization | null;
}

/** Side of a scaling tile: 1×128 for activations, 128×128 for weights [TR §3.3.2]. */
export const TILE = 128;

/**
 * Checks `config.json` and fills in the defaults of its model type.
 * @param json parsed content
 * @param source file name, for messages
 * @throws UserError naming file and field
 */
export function parseModelConfig(json: unknown, source = 'config.json'): ModelConfig {
  const type = (json as { model_type?: unknown } | null)?.model_type;
  if (type !== 'deepseek_v3' && type !== 'deepseek_v2') {
    throw new UserError(
      `${source}: model_type is ${JSON.stringify(type)}; supported are deepseek_v3 and deepseek_v2`,
    );
  }
  const parsed = fields.safeParse(json);
  if (!parsed.success) throw new UserError(`${source}: ${describeIssues(parsed.error)}`);
  const config = normalise(parsed.data, source);
  checkShapes(config, source);
  return config;
}

/** First problem of a failed parse as one line: `field: what is wrong`. */
export function describeIssues(error: z.ZodError): string {
  const { issue, path } = innermost(error.issues[0]!);
  const field = path.join('.');
  if (issue.code === 'unrecognized_keys') {
    const where = field ? ` in ${field}` : '';
    return `unknown field ${issue.keys.map((k) => `"${k}"`).join(', ')}${where}; remove it or correct its name`;
  }
  const more = error.issues.length > 1 ? ` (and ${error.issues.length - 1} more)` : '';
  return `field ${field || '(top)'}: ${issue.message}${more}`;
}

type Issue = z.core.$ZodIssue;

/** Where a value fits none of several forms: what keeps it from the form that it comes closest to, by how deep the fault lies. */
function innermost(issue: Issue, above: readonly PropertyKey[] = []): { issue: Issue; path: PropertyKey[] } {
  const path = [...above, ...issue.path];
  if (issue.code !== 'invalid_union') return { issue, path };
  const found = issue.errors.flatMap((form) => (form[0] ? [innermost(form[0], path)] : []));
  const deepest = found.reduce((a, b) => (b.path.length > a.path.length ? b : a), {
    issue: issue as Issue,
    path,
  });
  return deepest.path.length > path.length ? deepest : { issue, path };
}

function normalise(raw: HuggingFaceConfig, source: string): ModelConfig {
  const v3 = raw.model_type === 'deepseek_v3';
  const eos = raw.eos_token_id;
  return {
    model_type: raw.model_type,
    vocab_size: raw.vocab_size,
    hidden_size: raw.hidden_size,
    intermediate_size: raw.intermediate_size,
    moe_intermediate_size: raw.moe_intermediate_size,
    num_hidden_layers: raw.num_hidden_layers,
    num_nextn_predict_layers: raw.num_mtp_layers ?? raw.num_nextn_predict_layers,
    num_attention_heads: raw.num_attention_heads,
    ...attentionOf(raw, source),
    n_shared_experts: raw.n_shared_experts ?? 0,
    n_routed_experts: raw.n_routed_experts,
    num_experts_per_tok: raw.num_experts_per_tok,
    routed_scaling_factor: raw.routed_scaling_factor,
    qk_nope_head_dim: raw.qk_nope_head_dim,
    qk_rope_head_dim: raw.qk_rope_head_dim,
    v_head_dim: raw.v_head_dim,
    n_group: raw.n_group ?? 1,
    topk_group: raw.topk_group ?? 1,
    topk_method: raw.topk_method ?? (v3 ? 'noaux_tc' : 'greedy'),
    scoring_func: raw.scoring_func ?? (v3 ? 'sigmoid' : 'softmax'),
    norm_topk_prob: raw.norm_topk_prob ?? v3,
    first_k_dense_replace: raw.first_k_dense_replace,
    max_position_embeddings: raw.max_position_embeddings,
    initializer_range: raw.initializer_range,
    rms_norm_eps: raw.rms_norm_eps,
    tie_word_embeddings: raw.tie_word_embeddings,
    rope_theta: raw.rope_parameters?.rope_theta ?? raw.rope_theta ?? 10000,
    yarn: yarnOf(raw),
    rope_interleave: raw.rope_interleave ?? true,
    bos_token_id: raw.bos_token_id ?? null,
    eos_token_id: (Array.isArray(eos) ? eos[0] : eos) ?? null,
    quantization: quantizationOf(raw),
  };
}

/** Kind of attention with its heads and latents; fields of another kind than the model's own count for nothing. */
function attentionOf(
  { attention_kind: kind, num_attention_heads: heads, num_key_value_heads: given, ...raw }: HuggingFaceConfig,
  source: string,
): Pick<ModelConfig, 'attention_kind' | 'num_key_value_heads' | 'kv_lora_rank' | 'q_lora_rank'> {
  const fail = (what: string): never => {
    throw new UserError(`${source}: ${what}`);
  };
  if (kind === 'mla') {
    if (raw.qk_nope_head_dim === 0) fail('qk_nope_head_dim must be positive for MLA');
    const latent = raw.kv_lora_rank ?? fail('field kv_lora_rank is missing, which MLA needs');
    const query = raw.q_lora_rank ?? null;
    return { attention_kind: kind, num_key_value_heads: heads, kv_lora_rank: latent, q_lora_rank: query };
  }
  const groups = given ?? { mha: heads, mqa: 1, gqa: undefined }[kind];
  if (groups === undefined)
    return fail('field num_key_value_heads is missing, which attention_kind gqa needs');
  const disagrees = `num_key_value_heads (${groups}) does not go with attention_kind ${kind}: it must`;
  if (kind === 'mha' && groups !== heads) fail(`${disagrees} equal num_attention_heads (${heads})`);
  if (kind === 'mqa' && groups !== 1) fail(`${disagrees} be 1`);
  if (heads % groups !== 0) fail(`${disagrees} divide num_attention_heads (${heads})`);
  return { attention_kind: kind, num_key_value_heads: groups, kv_lora_rank: 0, q_lora_rank: null };
}

function quantizationOf({ quantization_config: q }: HuggingFaceConfig): Quantization | null {
  if (!q) return null;
  return q.quant_method === 'fp8'
    ? { method: 'fp8', weight_block_size: q.weight_block_size }
    : { method: q.weight_format };
}

function yarnOf(raw: HuggingFaceConfig): Yarn | null {
  const rope = raw.rope_parameters ?? raw.rope_scaling;
  if (!rope || (rope.rope_type ?? rope.type) !== 'yarn') return null;
  return {
    factor: rope.factor ?? 1,
    original_max_position_embeddings: rope.original_max_position_embeddings ?? raw.max_position_embeddings,
    beta_fast: rope.beta_fast ?? 32,
    beta_slow: rope.beta_slow ?? 1,
    mscale: rope.mscale ?? 0,
    mscale_all_dim: rope.mscale_all_dim ?? 0,
    attention_factor: rope.attention_factor,
    truncate: rope.truncate ?? true,
  };
}

function checkShapes(c: ModelConfig, source: string): void {
  const fail = (what: string) => {
    throw new UserError(`${source}: ${what}`);
  };
  if (c.n_routed_experts % c.n_group !== 0) {
    fail(`n_routed_experts (${c.n_routed_experts}) must be a multiple of n_group (${c.n_group})`);
  }
  if (c.topk_group > c.n_group) fail(`topk_group (${c.topk_group}) exceeds n_group (${c.n_group})`);
  const reachable = (c.n_routed_experts / c.n_group) * c.topk_group;
  if (c.num_experts_per_tok > reachable) {
    fail(
      `num_experts_per_tok (${c.num_experts_per_tok}) exceeds the ${reachable} experts within topk_group groups; ` +
        'lower it or raise topk_group',
    );
  }
  if (c.topk_method === 'noaux_tc' && c.n_group > 1 && c.n_routed_experts / c.n_group < 2) {
    fail(
      `groups of ${c.n_routed_experts / c.n_group} expert have no two best scores; lower n_group (${c.n_group})`,
    );
  }
  if (c.qk_rope_head_dim % 2 !== 0) fail(`qk_rope_head_dim (${c.qk_rope_head_dim}) must be even`);
  if (c.first_k_dense_replace > c.num_hidden_layers) {
    fail(
      `first_k_dense_replace (${c.first_k_dense_replace}) exceeds num_hidden_layers (${c.num_hidden_layers})`,
    );
  }
}

/**
 * Training in a tiled format needs contraction lengths that tiles fill.
 * @throws UserError naming the field
 */
export function checkTiles(c: ModelConfig, source: string): void {
  for (const field of ['hidden_size', 'intermediate_size', 'moe_intermediate_size'] as const) {
    if (c[field] % TILE !== 0) {
      throw new UserError(
        `${source}: ${field} (${c[field]}) must be a multiple of the scaling tile, ${TILE}, for FP8`,
      );
    }
  }
}

/** Whether decoder layer `layer` (MTP modules count on from `num_hidden_layers`) has experts. */
export const isMoeLayer = (c: ModelConfig, layer: number): boolean => layer >= c.first_k_dense_replace;
