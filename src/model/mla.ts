import type { RopeLayout } from '../tensor/backend.js';
import { attention, linear, rmsNorm, rope, splitColumns } from '../tensor/functions.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Context, Weights } from './context.js';

/**
 * Multi-head Latent Attention [TR §2.1.1; V2 §2.1].
 *
 * d_c = kv_lora_rank, d_c' = q_lora_rank, d_h = qk_nope_head_dim, d_h^R = qk_rope_head_dim, n_h heads.
 */

/** The latent norms have this epsilon in the published code, whatever `rms_norm_eps` says. */
export const LATENT_NORM_EPS = 1e-6;

/** h [T, D] → u [T, D]. */
export function multiHeadLatentAttention(ctx: Context, w: Weights, h: Tensor): Tensor {
  const { tape, config, recipe, layout } = ctx;
  const q = queries(ctx, w, h); // [T, n_h·(d_h + d_h^R)]
  const [cKv, kR] = compress(ctx, w, h); // c^KV [T, d_c], k^R [T, d_h^R]
  const kv = keysAndValues(ctx, w, cKv); // [T, n_h·(d_h + d_v)]: k^C and v^C
  rope(tape, q, ctx.ropeTable, layout.positions, queryRope(ctx));
  rope(tape, kR, ctx.ropeTable, layout.positions, keyRope(ctx));
  const o = attention(tape, q, kv, kR, layout.segments, {
    heads: config.num_attention_heads,
    nope: config.qk_nope_head_dim,
    rope: config.qk_rope_head_dim,
    v: config.v_head_dim,
    scale: ctx.softmaxScale,
  }); // [T, n_h·d_v]
  return linear(tape, o, w.get('o_proj.weight'), recipe.attentionOutput); // W^O
}

/** q = W^UQ RMSNorm(W^DQ h), or W^Q h in models without a query latent; [T, n_h·(d_h + d_h^R)], rotary part not yet turned. */
export function queries(ctx: Context, w: Weights, h: Tensor): Tensor {
  const { tape, recipe, recompute } = ctx;
  const full = w.find('q_proj.weight');
  if (full) return linear(tape, h, full, recipe.linear);
  const cQ = linear(tape, h, w.get('q_a_proj.weight'), recipe.linear); // c^Q [T, d_c']
  const normed = rmsNorm(tape, cQ, w.get('q_a_layernorm.weight'), LATENT_NORM_EPS, recompute.rmsNorm);
  return linear(tape, normed, w.get('q_b_proj.weight'), recipe.linear, {
    recompute: recompute.mlaUpProjection,
  });
}

/** [c^KV; k^R] = W^DKV, W^KR h: what a cache keeps, before its norm and rotation. */
export function compress(ctx: Context, w: Weights, h: Tensor): [Tensor, Tensor] {
  const { tape, config, recipe } = ctx;
  const both = linear(tape, h, w.get('kv_a_proj_with_mqa.weight'), recipe.linear); // [T, d_c + d_h^R]
  return splitColumns(tape, both, [config.kv_lora_rank, config.qk_rope_head_dim]) as [Tensor, Tensor];
}

/** RMSNorm(c^KV) [T, d_c]. */
export function normedLatent(ctx: Context, w: Weights, cKv: Tensor): Tensor {
  return rmsNorm(ctx.tape, cKv, w.get('kv_a_layernorm.weight'), LATENT_NORM_EPS, ctx.recompute.rmsNorm);
}

/** [k^C; v^C] = W^UK, W^UV RMSNorm(c^KV), per head [T, n_h·(d_h + d_v)]. */
function keysAndValues(ctx: Context, w: Weights, cKv: Tensor): Tensor {
  const { tape, recipe, recompute } = ctx;
  const normed = normedLatent(ctx, w, cKv);
  return linear(tape, normed, w.get('kv_b_proj.weight'), recipe.linear, {
    recompute: recompute.mlaUpProjection,
  });
}

/** The rotary slices of all heads' queries. */
export function queryRope({ config }: Context): RopeLayout {
  return {
    heads: config.num_attention_heads,
    stride: config.qk_nope_head_dim + config.qk_rope_head_dim,
    offset: config.qk_nope_head_dim,
    rope: config.qk_rope_head_dim,
    interleaved: config.rope_interleave,
  };
}

/** The one rotary key that all heads share. */
export function keyRope({ config }: Context): RopeLayout {
  return {
    heads: 1,
    stride: config.qk_rope_head_dim,
    offset: 0,
    rope: config.qk_rope_head_dim,
    interleaved: config.rope_interleave,
  };
}
