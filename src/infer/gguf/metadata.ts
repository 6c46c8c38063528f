import { UserError } from '../../errors.js';
import type { ModelConfig, Yarn } from '../../spec/model.js';
import type { Value } from './format.js';

/** A model as llama.cpp's architecture `deepseek2` describes it; keys as in its conversion/deepseek.py. */

export const u32 = (value: number): Value => ({ type: 'u32', value });
export const f32 = (value: number): Value => ({ type: 'f32', value });
export const bool = (value: boolean): Value => ({ type: 'bool', value });
export const text = (value: string): Value => ({ type: 'string', value });

/** Numbers of `llama_expert_gating_func_type`. */
const GATING = { softmax: 1, sigmoid: 2 } as const;

/**
 * Keys of the model itself.
 * @throws UserError for what llama.cpp's deepseek2 has no place for
 */
export function modelMetadata(c: ModelConfig, source: string): Map<string, Value> {
  checkExpressible(c, source);
  const pairs: [string, Value][] = [
    ['block_count', u32(c.num_hidden_layers)],
    ['context_length', u32(c.max_position_embeddings)],
    ['embedding_length', u32(c.hidden_size)],
    ['feed_forward_length', u32(c.intermediate_size)],
    ['vocab_size', u32(c.vocab_size)],
    ...attentionPairs(c),
    ...expertPairs(c),
    ['rope.dimension_count', u32(c.qk_rope_head_dim)],
    ['rope.freq_base', f32(c.rope_theta)],
    ...(c.yarn ? yarnPairs(c.yarn) : [['rope.scaling.type', text('none')] as [string, Value]]),
  ];
  return new Map(pairs.map(([key, value]) => [`deepseek2.${key}`, value]));
}

/** MLA runs absorbed there: attention with one key-value head of kv_lora_rank + qk_rope_head_dim values. */
const attentionPairs = (c: ModelConfig): [string, Value][] => [
  ['attention.head_count', u32(c.num_attention_heads)],
  ['attention.head_count_kv', u32(1)],
  ['attention.layer_norm_rms_epsilon', f32(c.rms_norm_eps)],
  // 0, as a model of 27 or 26 layers has it without saying so, stands for no query latent.
  ['attention.q_lora_rank', u32(c.q_lora_rank ?? 0)],
  ['attention.kv_lora_rank', u32(c.kv_lora_rank)],
  ['attention.key_length', u32(c.kv_lora_rank + c.qk_rope_head_dim)],
  ['attention.value_length', u32(c.kv_lora_rank)],
  ['attention.key_length_mla', u32(c.qk_nope_head_dim + c.qk_rope_head_dim)],
  ['attention.value_length_mla', u32(c.v_head_dim)],
];

const expertPairs = (c: ModelConfig): [string, Value][] => [
  ['leading_dense_block_count', u32(c.first_k_dense_replace)],
  ['expert_count', u32(c.n_routed_experts)],
  ['expert_used_count', u32(c.num_experts_per_tok)],
  ['expert_shared_count', u32(c.n_shared_experts)],
  ['expert_feed_forward_length', u32(c.moe_intermediate_size)],
  ['expert_weights_scale', f32(c.routed_scaling_factor)],
  ['expert_weights_norm', bool(c.norm_topk_prob)],
  ['expert_gating_func', u32(GATING[c.scoring_func])],
  // Left out where they limit nothing: llama.cpp asserts that fewer groups are used than there are.
  ...(limitsGroups(c)
    ? ([
        ['expert_group_count', u32(c.n_group)],
        ['expert_group_used_count', u32(c.topk_group)],
      ] as [string, Value][])
    : []),
];

const limitsGroups = (c: ModelConfig): boolean => c.topk_method !== 'greedy' && c.topk_group < c.n_group;

/**
 * Where `yarn_log_multiplier` is given, llama.cpp leaves cos and sin unscaled and multiplies the softmax scale by
 * (0.1·m·ln(factor) + 1)²; without it, it scales everything by another rule. So it is always given, for m = 0 as a number that
 * vanishes in FP32; a factor on cos and sin goes into the query weights (`queryRotaryFactor`).
 */
const yarnPairs = (yarn: Yarn): [string, Value][] => [
  ['rope.scaling.type', text('yarn')],
  ['rope.scaling.factor', f32(yarn.factor)],
  ['rope.scaling.original_context_length', u32(yarn.original_max_position_embeddings)],
  ['rope.scaling.yarn_beta_fast', f32(yarn.beta_fast)],
  ['rope.scaling.yarn_beta_slow', f32(yarn.beta_slow)],
  // A tenth of m: "for legacy reasons", says their converter.
  ['rope.scaling.yarn_log_multiplier', f32(0.1 * (yarn.mscale_all_dim || 1e-9))],
];

function checkExpressible(c: ModelConfig, source: string): void {
  const fail = (what: string): never => {
    throw new UserError(`${source}: ${what}; llama.cpp's deepseek2 cannot run such a model`);
  };
  if (c.attention_kind !== 'mla') fail(`attention_kind is ${c.attention_kind}, not mla`);
  if (c.n_shared_experts === 0) fail('n_shared_experts is 0');
  if (c.yarn && !c.yarn.truncate) fail('rope_scaling.truncate is false');
  if ((c.num_hidden_layers === 27 || c.num_hidden_layers === 26) && c.q_lora_rank !== null) {
    fail(
      `with num_hidden_layers ${c.num_hidden_layers} it takes every model for a Lite one, but q_lora_rank is ${c.q_lora_rank}`,
    );
  }
  if (limitsGroups(c) && c.topk_method !== 'noaux_tc') {
    fail(
      'topk_method is group_limited_greedy, whose groups go by their best score, there by the sum of their two best',
    );
  }
}
