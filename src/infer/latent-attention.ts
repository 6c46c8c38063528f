import type { Context, Weights } from '../model/context.js';
import type { Transformer } from '../model/transformer.js';
import { operandOf, type Recipe } from '../spec/precision.js';
import type { Backend } from '../tensor/backend.js';
import { attention, linear } from '../tensor/functions.js';
import type { LatentPages, LatentRows } from '../tensor/latent-pages.js';
import { allocate, Parameter } from '../tensor/parameter.js';
import type { Tape } from '../tensor/tape.js';
import { Tensor } from '../tensor/tensor.js';

/**
 * The two forms of MLA's attention in inference. Legend: T rows, H heads, d_c = kv_lora_rank, d_h / d_h^R / d_v the
 * non-rotary, rotary and value head sizes.
 */

/** The two halves of kv_b_proj, one matrix per head. */
export interface Absorbed {
  /** W^UK [H, d_h, d_c]. */
  wUk: Parameter;
  /** W^UV [H, d_v, d_c]. */
  wUv: Parameter;
}

/** kv_b_proj of a decoder layer for the absorbed form. */
export function absorb(model: Transformer, layer: number): Absorbed {
  const { config, backend } = model;
  const { num_attention_heads: heads, qk_nope_head_dim: nope, v_head_dim: v, kv_lora_rank: latent } = config;
  const kvB = model.weightsOf(`model.layers.${layer}.self_attn.`).get('kv_b_proj.weight').value.data;
  const take = (name: string, from: number, rows: number): Parameter => {
    const value = allocate(backend, [heads, rows, latent], 'f32');
    for (let h = 0; h < heads; h++) {
      const start = (h * (nope + v) + from) * latent;
      (value.data as Float32Array).set(kvB.subarray(start, start + rows * latent), h * rows * latent);
    }
    return new Parameter(name, value, backend);
  };
  return { wUk: take(`layer ${layer} W^UK`, 0, nope), wUv: take(`layer ${layer} W^UV`, nope, v) };
}

/** Expanded form: q [T, H·(d_h + d_h^R)], latent [T, d_c], kR [T, d_h^R] of whole sequences → o [T, H·d_v]. */
export function expandedAttention(
  ctx: Context,
  w: Weights,
  q: Tensor,
  latent: Tensor,
  kR: Tensor,
  segments: Tensor,
): Tensor {
  const { config, tape } = ctx;
  const kv = linear(tape, latent, w.get('kv_b_proj.weight'), ctx.recipe.linear);
  return attention(tape, q, kv, kR, segments, {
    heads: config.num_attention_heads,
    nope: config.qk_nope_head_dim,
    rope: config.qk_rope_head_dim,
    v: config.v_head_dim,
    scale: ctx.softmaxScale,
  });
}

/**
 * Absorbed form [V2 §2.1.2]: q [T, H·(d_h + d_h^R)] on the cached latents → o [T, H·d_v].
 */
export function absorbedAttention(
  ctx: Context,
  { wUk, wUv }: Absorbed,
  q: Tensor,
  pages: LatentPages,
  rows: LatentRows,
): Tensor {
  const { tape, config, recipe } = ctx;
  const { backend } = tape;
  const { num_attention_heads: heads, kv_lora_rank: latent, qk_rope_head_dim: rope } = config;
  const { qk_nope_head_dim: nope, v_head_dim: v } = config;
  const tokens = q.rows;
  const order = headMajor(tokens, heads);
  const perHead = q.reshape([tokens * heads, nope + rope]);
  const qNope = tape.alloc([tokens * heads, nope], q.dtype);
  const qRope = tape.alloc([tokens * heads, rope], q.dtype);
  backend.copyColumnsOut(perHead, 0, qNope);
  backend.copyColumnsOut(perHead, nope, qRope);
  const qLatent = multiplyPerHead(tape, qNope, wUk, recipe, latent, order, true);
  const full = tape.alloc([tokens * heads, latent + rope], q.dtype);
  backend.copyColumnsIn(qLatent, full, 0);
  backend.copyColumnsIn(qRope, full, latent);
  const o = tape.alloc([tokens, heads * latent], q.dtype);
  const query = full.reshape([tokens, heads * (latent + rope)]);
  backend.latentAttention(query, pages, rows, { heads, scale: ctx.softmaxScale }, o);
  const oLatent = o.reshape([tokens * heads, latent]);
  return multiplyPerHead(tape, oLatent, wUv, recipe, v, order, false).reshape([tokens, heads * v]);
}

const FP32 = operandOf('fp32');
const BF16 = operandOf('bf16');

/** Row orders between (token, head) and (head, token). */
interface HeadMajor {
  tokens: number;
  /** i32 [H+1]. */
  offsets: Tensor;
  toHeads: Tensor;
  toTokens: Tensor;
}

function headMajor(tokens: number, heads: number): HeadMajor {
  const count = tokens * heads;
  const toHeads = Int32Array.from({ length: count }, (_, r) => (r % tokens) * heads + Math.floor(r / tokens));
  const toTokens = Int32Array.from({ length: count }, (_, r) => (r % heads) * tokens + Math.floor(r / heads));
  const offsets = Int32Array.from({ length: heads + 1 }, (_, h) => h * tokens);
  return {
    tokens,
    offsets: Tensor.i32(offsets),
    toHeads: Tensor.i32(toHeads),
    toTokens: Tensor.i32(toTokens),
  };
}

/** x [T·H, a] (token-major) times one matrix per head → [T·H, width] (token-major). */
function multiplyPerHead(
  tape: Tape,
  x: Tensor,
  w: Parameter,
  recipe: Recipe,
  width: number,
  order: HeadMajor,
  transposed: boolean,
): Tensor {
  const { backend } = tape;
  const operand = recipe.activations === 'fp32' ? FP32 : BF16;
  const sorted = reorder(tape, backend, x, order.tokens, order.toHeads);
  const y = tape.alloc([x.rows, width], x.dtype);
  const a = { operand, codes: sorted, scales: undefined };
  backend.gemm(a, w.packed(operand, transposed), y, { offsets: order.offsets });
  return reorder(tape, backend, y, order.tokens, order.toTokens);
}

function reorder(tape: Tape, backend: Backend, x: Tensor, tokens: number, source: Tensor): Tensor {
  if (tokens === 1) return x;
  const out = tape.alloc(x.shape, x.dtype);
  backend.permute(x, source, out);
  return out;
}
