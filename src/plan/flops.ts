import { isMoeLayer, type ModelConfig } from '../spec/model.js';

/**
 * Floating-point operations of a DeepSeek transformer per token; one multiply-add counts as two. GEMMs and
 * attention only, as is usual for model FLOPs utilisation [arXiv 2204.02311 appendix B].
 */
export interface FlopsPerToken {
  /** Products with weights. */
  matmul: number;
  /** Products between tokens, causal: a token attends to half of the sequence on average. */
  attention: number;
}

/** Forward pass of the main model and `mtpDepth` MTP modules over sequences of `length` tokens. */
export function forwardFlops(
  c: ModelConfig,
  length: number,
  mtpDepth = c.num_nextn_predict_layers,
): FlopsPerToken {
  const layers = Array.from({ length: c.num_hidden_layers + mtpDepth }, (_, l) => l);
  const blocks = layers.reduce((n, l) => n + attentionWeights(c) + mlpWeights(c, l), 0);
  const heads = (1 + mtpDepth) * c.vocab_size * c.hidden_size;
  const projections = mtpDepth * 2 * c.hidden_size * c.hidden_size;
  const perPair = c.num_attention_heads * (c.qk_nope_head_dim + c.qk_rope_head_dim + c.v_head_dim);
  return {
    matmul: 2 * (blocks + heads + projections),
    attention: 2 * layers.length * perPair * (length / 2),
  };
}

/** Forward and backward: the backward pass does twice the forward's products. */
export function trainingFlops(c: ModelConfig, length: number, mtpDepth = c.num_nextn_predict_layers): number {
  const { matmul, attention } = forwardFlops(c, length, mtpDepth);
  return 3 * (matmul + attention);
}

/** Elements of the attention's matrices. */
function attentionWeights(c: ModelConfig): number {
  const depth = c.qk_nope_head_dim + c.qk_rope_head_dim;
  const queryRows = c.num_attention_heads * depth;
  if (c.attention_kind !== 'mla') {
    const keyValueRows = c.num_key_value_heads * (depth + c.v_head_dim);
    return c.hidden_size * (queryRows + keyValueRows + c.num_attention_heads * c.v_head_dim);
  }
  const query =
    c.q_lora_rank === null ? c.hidden_size * queryRows : c.q_lora_rank * (c.hidden_size + queryRows);
  const latent = c.hidden_size * (c.kv_lora_rank + c.qk_rope_head_dim);
  const up = c.kv_lora_rank * c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim);
  return query + latent + up + c.num_attention_heads * c.v_head_dim * c.hidden_size;
}

/** Elements of the MLP's matrices that one token meets. */
function mlpWeights(c: ModelConfig, layer: number): number {
  if (!isMoeLayer(c, layer)) return 3 * c.hidden_size * c.intermediate_size;
  const experts = c.num_experts_per_tok + c.n_shared_experts;
  return experts * 3 * c.hidden_size * c.moe_intermediate_size + c.hidden_size * c.n_routed_experts;
}
