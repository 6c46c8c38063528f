import { UserError } from '../errors.js';
import type { Context, Weights } from '../model/context.js';
import { compress, keyRope, normedLatent, queries, queryRope } from '../model/mla.js';
import { activationType, type Transformer } from '../model/transformer.js';
import type { Recipe } from '../spec/precision.js';
import type { Backend } from '../tensor/backend.js';
import { add, attention, linear, rmsNorm, rope } from '../tensor/functions.js';
import { allocate, Parameter } from '../tensor/parameter.js';
import { Pool } from '../tensor/pool.js';
import { Tape } from '../tensor/tape.js';
import { Tensor } from '../tensor/tensor.js';

/**
 * Decoding with the latent cache: per token and layer only c^KV and k^R are kept (d_c + d_h^R values), and
 * new tokens attend to them directly, W^UK absorbed into the query and W^UV into the output [V2 §2.1.2].
 * A prompt at the start of a sequence takes the expanded form of training instead, which needs fewer operations.
 */
export class Decoder {
  /** Tokens in the cache. */
  length = 0;
  private readonly backend: Backend;
  private readonly pool: Pool;
  /** Per layer [capacity, d_c + d_h^R]: RMSNorm(c^KV) and the rotated k^R. */
  private readonly caches: Tensor[];
  private readonly absorbed: Absorbed[];

  constructor(
    private readonly model: Transformer,
    private readonly recipe: Recipe,
    /** Most tokens of prompt and continuation together. */
    readonly capacity: number,
  ) {
    const { config, backend } = model;
    if (config.attention_kind !== 'mla') {
      throw new UserError(
        `the model has attention_kind ${config.attention_kind}; text is generated with mla only, train such a model to generate`,
      );
    }
    this.backend = backend;
    this.pool = new Pool(backend);
    const width = config.kv_lora_rank + config.qk_rope_head_dim;
    const layers = Array.from({ length: config.num_hidden_layers }, (_, l) => l);
    this.caches = layers.map(() => allocate(backend, [capacity, width], activationType(recipe)));
    this.absorbed = layers.map((l) => absorb(model, l));
  }

  /** Bytes of cache per token over all layers. */
  get bytesPerToken(): number {
    return this.caches.reduce((n, cache) => n + cache.data.byteLength / this.capacity, 0);
  }

  /** Appends tokens to the sequence; logits of the token after the last, f32 [V] in memory of the caller's own. */
  extend(tokens: readonly number[]): Float32Array {
    if (this.length + tokens.length > this.capacity)
      throw new RangeError(`the cache holds ${this.capacity} tokens`);
    const tape = new Tape(this.backend, this.pool, false);
    const logits = tape.scopeValue(() => this.forward(tape, tokens));
    this.length += tokens.length;
    return logits;
  }

  private forward(tape: Tape, tokens: readonly number[]): Float32Array {
    const { model } = this;
    const count = tokens.length;
    const positions = Tensor.i32(tokens.map((_, i) => this.length + i));
    const bounds = Tensor.i32([0, count]);
    const layout = { positions, segments: bounds, sequences: bounds };
    const ctx = model.context(tape, this.recipe, layout, { rmsNorm: false, mlaUpProjection: false });
    let h = model.embed(ctx, Tensor.i32([...tokens]));
    for (let l = 0; l < this.caches.length; l++) h = tape.scope(() => this.layer(ctx, l, h));
    const last = h.rowsView(count - 1, count);
    return Float32Array.from(model.logits(ctx, model.finalNorm(ctx, last)).data as Float32Array);
  }

  private layer(ctx: Context, l: number, x: Tensor): Tensor {
    const { tape, config } = ctx;
    const w = this.model.weightsOf(`model.layers.${l}.`);
    const u = rmsNorm(tape, x, w.get('input_layernorm.weight'), config.rms_norm_eps);
    const attended = add(tape, x, this.attend(ctx, l, u));
    const v = rmsNorm(tape, attended, w.get('post_attention_layernorm.weight'), config.rms_norm_eps);
    return add(tape, attended, this.model.mlp(ctx, l, v));
  }

  /** u [T, D] → W^O attention [T, D]; appends to the cache. */
  private attend(ctx: Context, l: number, u: Tensor): Tensor {
    const { tape, config, recipe, layout } = ctx;
    const w = this.model.weightsOf(`model.layers.${l}.self_attn.`);
    const q = queries(ctx, w, u);
    const [cKv, kR] = compress(ctx, w, u);
    const latent = normedLatent(ctx, w, cKv);
    rope(tape, q, ctx.ropeTable, layout.positions, queryRope(ctx));
    rope(tape, kR, ctx.ropeTable, layout.positions, keyRope(ctx));
    const rows = this.caches[l]!.rowsView(this.length, this.length + u.rows);
    this.backend.copyColumnsIn(latent, rows, 0);
    this.backend.copyColumnsIn(kR, rows, config.kv_lora_rank);
    const fresh = this.length === 0 && u.rows > 1;
    const o = fresh ? this.expanded(ctx, w, q, latent, kR) : this.onLatents(ctx, l, q);
    return linear(tape, o, w.get('o_proj.weight'), recipe.attentionOutput);
  }

  private expanded(ctx: Context, w: Weights, q: Tensor, latent: Tensor, kR: Tensor): Tensor {
    const { config, tape } = ctx;
    const kv = linear(tape, latent, w.get('kv_b_proj.weight'), ctx.recipe.linear);
    return attention(tape, q, kv, kR, ctx.layout.segments, {
      heads: config.num_attention_heads,
      nope: config.qk_nope_head_dim,
      rope: config.qk_rope_head_dim,
      v: config.v_head_dim,
      scale: ctx.softmaxScale,
    });
  }

  /** q [T, H·(d_h + d_h^R)] on the cached latents → o [T, H·d_v]. */
  private onLatents(ctx: Context, l: number, q: Tensor): Tensor {
    const { tape, config, recipe } = ctx;
    const {
      num_attention_heads: heads,
      kv_lora_rank: latent,
      qk_rope_head_dim: ropeDim,
      v_head_dim: v,
    } = config;
    const { wUk, wUv } = this.absorbed[l]!;
    const tokens = q.rows;
    const byHead = headMajor(tokens, heads);
    const perHead = q.reshape([tokens * heads, config.qk_nope_head_dim + ropeDim]);
    const qNope = tape.alloc([tokens * heads, config.qk_nope_head_dim], q.dtype);
    const qRope = tape.alloc([tokens * heads, ropeDim], q.dtype);
    this.backend.copyColumnsOut(perHead, 0, qNope);
    this.backend.copyColumnsOut(perHead, config.qk_nope_head_dim, qRope);

    // q_nope·W^UK per head: [H·T, d_h] → [H·T, d_c]
    const qLatent = this.perHead(tape, qNope, wUk, recipe, latent, byHead, true);
    const full = tape.alloc([tokens * heads, latent + ropeDim], q.dtype);
    this.backend.copyColumnsIn(qLatent, full, 0);
    this.backend.copyColumnsIn(qRope, full, latent);

    const o = tape.alloc([tokens * heads, latent], q.dtype);
    const shape = { heads, latent, rope: ropeDim, scale: ctx.softmaxScale };
    const { index, bounds } = causalRows(this.length, tokens);
    this.backend.latentAttention(
      full.reshape([tokens, heads * (latent + ropeDim)]),
      this.caches[l]!,
      index,
      bounds,
      shape,
      o.reshape([tokens, heads * latent]),
    );
    return this.perHead(tape, o, wUv, recipe, v, byHead, false).reshape([tokens, heads * v]);
  }

  /** x [T·H, a] (token-major) times one matrix per head → [T·H, width] (token-major). */
  private perHead(
    tape: Tape,
    x: Tensor,
    w: Parameter,
    recipe: Recipe,
    width: number,
    order: HeadMajor,
    transposed: boolean,
  ): Tensor {
    const { backend } = this;
    const operand = recipe.activations === 'fp32' ? FP32 : BF16;
    const move = (t: Tensor, source: Tensor) => {
      if (order.tokens === 1) return t;
      const out = tape.alloc(t.shape, t.dtype);
      backend.permute(t, source, out);
      return out;
    };
    const sorted = move(x, order.toHeads);
    const y = tape.alloc([x.rows, width], x.dtype);
    const a = { operand, codes: sorted, scales: undefined };
    backend.gemm(a, w.packed(operand, transposed), y, { offsets: order.offsets });
    return move(y, order.toTokens);
  }
}

const FP32 = { format: 'fp32', scale: 'fp32' } as const;
const BF16 = { format: 'bf16', scale: 'fp32' } as const;

/** The two halves of kv_b_proj, one matrix per head. */
interface Absorbed {
  /** W^UK [H, d_h, d_c]. */
  wUk: Parameter;
  /** W^UV [H, d_v, d_c]. */
  wUv: Parameter;
}

function absorb(model: Transformer, l: number): Absorbed {
  const { config, backend } = model;
  const { num_attention_heads: heads, qk_nope_head_dim: nope, v_head_dim: v, kv_lora_rank: latent } = config;
  const kvB = model.weightsOf(`model.layers.${l}.self_attn.`).get('kv_b_proj.weight').value.data;
  const take = (name: string, from: number, rows: number): Parameter => {
    const value = allocate(backend, [heads, rows, latent], 'f32');
    for (let h = 0; h < heads; h++) {
      const start = (h * (nope + v) + from) * latent;
      (value.data as Float32Array).set(kvB.subarray(start, start + rows * latent), h * rows * latent);
    }
    return new Parameter(name, value, backend);
  };
  return { wUk: take(`layer ${l} W^UK`, 0, nope), wUv: take(`layer ${l} W^UV`, nope, v) };
}

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

/** Each new token sees all cached rows up to its own. */
function causalRows(before: number, tokens: number): { index: Tensor; bounds: Tensor } {
  const index: number[] = [];
  const bounds = [0];
  for (let t = 0; t < tokens; t++) {
    for (let row = 0; row <= before + t; row++) index.push(row);
    bounds.push(index.length);
  }
  return { index: Tensor.i32(index), bounds: Tensor.i32(bounds) };
}
