import { linear, rope } from '../tensor/functions.js';
import { groupedAttention } from '../tensor/grouped-attention.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Context, Weights } from './context.js';
import { multiHeadLatentAttention, queries, queryRope } from './mla.js';

/** The attention that `attention_kind` names: h [T, D] → u [T, D]. */
export function attentionBlock(ctx: Context, w: Weights, h: Tensor): Tensor {
  return ctx.config.attention_kind === 'mla'
    ? multiHeadLatentAttention(ctx, w, h)
    : groupedQueryAttention(ctx, w, h);
}

/**
 * MHA, GQA and MQA: n_h query heads on n_kv = num_key_value_heads heads of keys and values. A head of queries or keys has
 * d_h = qk_nope_head_dim values that are not turned and d_h^R = qk_rope_head_dim that are, as in MLA, but every
 * key-value head has a rotary part of its own.
 */
function groupedQueryAttention(ctx: Context, w: Weights, h: Tensor): Tensor {
  const { tape, config, recipe, layout } = ctx;
  const q = queries(ctx, w, h); // [T, n_h·(d_h + d_h^R)]
  const k = linear(tape, h, w.get('k_proj.weight'), recipe.linear); // [T, n_kv·(d_h + d_h^R)]
  const v = linear(tape, h, w.get('v_proj.weight'), recipe.linear); // [T, n_kv·d_v]
  const turned = queryRope(ctx);
  rope(tape, q, ctx.ropeTable, layout.positions, turned);
  rope(tape, k, ctx.ropeTable, layout.positions, { ...turned, heads: config.num_key_value_heads });
  const o = groupedAttention(tape, q, k, v, layout.segments, {
    heads: config.num_attention_heads,
    groups: config.num_key_value_heads,
    depth: config.qk_nope_head_dim + config.qk_rope_head_dim,
    v: config.v_head_dim,
    scale: ctx.softmaxScale,
  }); // [T, n_h·d_v]
  return linear(tape, o, w.get('o_proj.weight'), recipe.attentionOutput);
}
