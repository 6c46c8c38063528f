import type { Context } from '../model/context.js';
import { compress, keyRope, normedLatent, queries, queryRope } from '../model/mla.js';
import { activationType, type Transformer } from '../model/transformer.js';
import type { ModelConfig } from '../spec/model.js';
import type { Recipe } from '../spec/precision.js';
import type { CacheFormat, WeightFormat } from '../spec/serving.js';
import { add, concatColumns, linear, rmsNorm, rope } from '../tensor/functions.js';
import { PAGE_TOKENS } from '../tensor/latent-pages.js';
import { Pool } from '../tensor/pool.js';
import { Tape } from '../tensor/tape.js';
import { Tensor } from '../tensor/tensor.js';
import { type Absorbed, absorb, absorbedAttention, expandedAttention } from './latent-attention.js';
import { LatentCache } from './latent-cache.js';
import type { ModelRunner, StepBatch, StepResult } from './runner.js';
import { planStep, type StepPlan } from './step-plan.js';

export interface RunnerOptions {
  recipe: Recipe;
  weightFormat: WeightFormat;
  cacheFormat: CacheFormat;
  pages: number;
}

const NO_RECOMPUTE = { rmsNorm: false, mlaUpProjection: false };

/** A `Transformer` with its latent cache. Legend as in `runner.ts`: M new tokens, D hidden size, V vocabulary. */
export class TransformerRunner implements ModelRunner {
  readonly config: ModelConfig;
  readonly weightFormat: WeightFormat;
  readonly cache: ModelRunner['cache'];
  readonly draftDepth: number;
  private readonly latents: LatentCache;
  private readonly absorbed: readonly Absorbed[];
  private readonly pool: Pool;
  /** What the last call returned. */
  private held: readonly Tensor[] = [];

  constructor(
    private readonly model: Transformer,
    private readonly options: RunnerOptions,
  ) {
    const { config, backend } = model;
    const { cacheFormat: format, pages, weightFormat } = options;
    this.config = config;
    this.weightFormat = weightFormat;
    this.draftDepth = Math.min(model.mtpDepth, 1);
    const layers = config.num_hidden_layers + this.draftDepth;
    const { kv_lora_rank: latent, qk_rope_head_dim: ropeDim } = config;
    this.latents = new LatentCache(backend, { layers, latent, rope: ropeDim, pages, format });
    this.cache = { format, pageTokens: PAGE_TOKENS, pages, bytesPerToken: this.latents.bytesPerToken };
    this.absorbed = Array.from({ length: layers }, (_, l) => absorb(model, l));
    this.pool = new Pool(backend);
  }

  get weightBytes(): number {
    const own = [...this.model.parameters.values(), ...this.absorbed.flatMap(({ wUk, wUv }) => [wUk, wUv])];
    return own.reduce((n, p) => n + p.value.data.byteLength + p.packedBytes, 0);
  }

  step(batch: StepBatch): StepResult {
    return this.run(batch, (ctx, plan) => {
      let h = this.model.embed(ctx, plan.tokens);
      for (let l = 0; l < this.config.num_hidden_layers; l++) {
        h = ctx.tape.scope(() => this.layer(ctx, plan, l, h));
      }
      return this.model.finalNorm(ctx, h);
    });
  }

  draft(batch: StepBatch, hidden: Tensor): StepResult {
    if (this.draftDepth === 0) throw new Error('the model was opened without an MTP module');
    return this.run(batch, (ctx, plan) => this.mtpModule(ctx, plan, hidden));
  }

  copyPage(from: number, to: number): void {
    this.latents.copyPage(from, to);
  }

  close(): void {
    this.releaseHeld();
  }

  /** Runs one pass that gives hidden states after their norm [M, D], and computes the logits that are wanted. */
  private run(batch: StepBatch, forward: (ctx: Context, plan: StepPlan) => Tensor): StepResult {
    const { model, options, pool } = this;
    const plan = planStep(batch, this.config.max_position_embeddings);
    const tape = new Tape(model.backend, pool, false);
    const bounds = Tensor.i32([0, plan.tokens.size]);
    const layout = { positions: plan.positions, segments: bounds, sequences: bounds };
    const ctx = model.context(tape, options.recipe, layout, NO_RECOMPUTE);
    const hidden = tape.scope(() => forward(ctx, plan));
    const logits = tape.scope(() => this.logits(ctx, hidden, batch.wanted));
    pool.retain(hidden);
    pool.retain(logits);
    tape.clear();
    this.releaseHeld();
    this.held = [hidden, logits];
    return { hidden, logits };
  }

  private releaseHeld(): void {
    for (const tensor of this.held) this.pool.release(tensor);
    this.held = [];
  }

  private logits(ctx: Context, hidden: Tensor, wanted: Int32Array): Tensor {
    if (wanted.length === 0) return Tensor.zeros([0, this.config.vocab_size], 'f32');
    const rows = ctx.tape.alloc([wanted.length, hidden.cols], hidden.dtype);
    ctx.tape.backend.permute(hidden, Tensor.i32(wanted), rows);
    return this.model.logits(ctx, rows);
  }

  /** `Transformer.mtpModule` on the module's own cache layer. */
  private mtpModule(ctx: Context, plan: StepPlan, hidden: Tensor): Tensor {
    const { tape, config, recipe } = ctx;
    const layer = config.num_hidden_layers;
    const w = this.model.weightsOf(`model.layers.${layer}.`);
    const eps = config.rms_norm_eps;
    const e = rmsNorm(tape, this.model.embed(ctx, plan.tokens), w.get('enorm.weight'), eps);
    const h = rmsNorm(tape, hidden, w.get('hnorm.weight'), eps);
    const joined = linear(tape, concatColumns(tape, e, h), w.get('eh_proj.weight'), recipe.linear);
    return rmsNorm(tape, this.layer(ctx, plan, layer, joined), w.get('shared_head.norm.weight'), eps);
  }

  /** x [M, D] → [M, D]; appends to the cache. */
  private layer(ctx: Context, plan: StepPlan, l: number, x: Tensor): Tensor {
    const { tape, config } = ctx;
    const w = this.model.weightsOf(`model.layers.${l}.`);
    const u = rmsNorm(tape, x, w.get('input_layernorm.weight'), config.rms_norm_eps);
    const attended = add(tape, x, this.attend(ctx, plan, l, u));
    const v = rmsNorm(tape, attended, w.get('post_attention_layernorm.weight'), config.rms_norm_eps);
    return add(tape, attended, this.model.mlp(ctx, l, v));
  }

  /** u [M, D] → W^O attention [M, D]; appends to the cache. */
  private attend(ctx: Context, plan: StepPlan, l: number, u: Tensor): Tensor {
    const { tape, config, recipe } = ctx;
    const w = this.model.weightsOf(`model.layers.${l}.self_attn.`);
    const q = queries(ctx, w, u);
    const [cKv, kR] = compress(ctx, w, u);
    const latent = normedLatent(ctx, w, cKv);
    rope(tape, q, ctx.ropeTable, plan.positions, queryRope(ctx));
    rope(tape, kR, ctx.ropeTable, plan.positions, keyRope(ctx));
    const pages = this.latents.layers[l]!;
    tape.backend.latentWrite(latent, kR, plan.slots, pages);
    const o = tape.alloc([u.rows, config.num_attention_heads * config.v_head_dim], u.dtype);
    for (const part of plan.parts) {
      const rows = (t: Tensor) => t.rowsView(part.from, part.to);
      const value =
        part.kind === 'expanded'
          ? expandedAttention(ctx, w, rows(q), rows(latent), rows(kR), part.segments)
          : absorbedAttention(ctx, this.absorbed[l]!, rows(q), pages, part.rows);
      tape.backend.copyColumnsIn(value, rows(o), 0);
    }
    return linear(tape, o, w.get('o_proj.weight'), recipe.attentionOutput);
  }
}

/** The cache format that keeps what a recipe computes. */
export const cacheFormatOf = (recipe: Recipe): CacheFormat =>
  activationType(recipe) === 'f32' ? 'fp32' : 'bf16';
