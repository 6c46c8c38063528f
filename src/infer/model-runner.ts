import type { ModelConfig } from '../spec/model.js';
import type { CacheFormat, WeightFormat } from '../spec/serving.js';
import type { Backend } from '../tensor/backend.js';
import type { StoredWeight } from '../tensor/inference.js';
import type { LatentPages } from '../tensor/latent-pages.js';
import { PAGE_TOKENS } from '../tensor/latent-pages.js';
import { Pool } from '../tensor/pool.js';
import { Tape } from '../tensor/tape.js';
import { Tensor } from '../tensor/tensor.js';
import { attentionForm } from './attention-form.js';
import { attentionBlock, feedForwardBlock, normProject } from './compose.js';
import { LatentCache } from './latent-cache.js';
import type { ModelRunner, StepBatch, StepResult } from './runner.js';
import { shardedFeedForward } from './sharded-experts.js';
import { planStep, type StepPlan } from './step-plan.js';
import { type LayerWeights, type StoredModel, weightsOf } from './stored-model.js';

/** Rows up to which a layer's blocks are one call each, where the backend has them. */
const BLOCK_ROWS = 32;

/** Stored weights with their latent cache. Legend as in `runner.ts`: M new tokens, D hidden size, V vocabulary. */
export class StoredRunner implements ModelRunner {
  readonly config: ModelConfig;
  readonly weightFormat: WeightFormat;
  readonly weightBytes: number;
  readonly cache: ModelRunner['cache'];
  readonly draftDepth: number;
  private readonly latents: LatentCache;
  private readonly pool: Pool;
  /** What the last call returned. */
  private held: readonly Tensor[] = [];

  constructor(
    private readonly backend: Backend,
    private readonly model: StoredModel,
    { format, pages }: { format: CacheFormat; pages: number },
  ) {
    const { config } = model;
    this.config = config;
    this.weightFormat = model.format;
    this.weightBytes = weightsOf(model).reduce((sum, { bytes }) => sum + bytes, 0);
    this.draftDepth = model.mtp ? 1 : 0;
    this.latents = new LatentCache(backend, {
      layers: config.num_hidden_layers + this.draftDepth,
      latent: config.kv_lora_rank,
      rope: config.qk_rope_head_dim,
      pages,
      format,
    });
    this.cache = { format, pageTokens: PAGE_TOKENS, pages, bytesPerToken: this.latents.bytesPerToken };
    this.pool = new Pool(backend, 'powers'); // prompts and batches have all sizes
  }

  step(batch: StepBatch): StepResult {
    const { layers, norm: weight } = this.model;
    return this.run(batch, weight, (tape, plan) => {
      const x = this.embed(tape, plan.tokens);
      layers.forEach((layer, l) => {
        this.layer(tape, x, layer, this.latents.layers[l]!, plan);
      });
      return x;
    });
  }

  draft(batch: StepBatch, hidden: Tensor): StepResult {
    const { mtp } = this.model;
    if (!mtp) throw new Error('the model was opened without an MTP module');
    return this.run(batch, mtp.norm, (tape, plan) => {
      const parts = [this.embed(tape, plan.tokens), hidden];
      const { value: x } = this.normed(tape, parts, [mtp.embeddingNorm, mtp.hiddenNorm], mtp.projection);
      this.layer(tape, x, mtp.layer, this.latents.layers.at(-1)!, plan);
      return x;
    });
  }

  /**
   * Takes this rank's part in a step, or a draft, that others make and this one has no rows for: its experts compute.
   * @param draft which of the two
   */
  accompany(draft: boolean): void {
    const { layers, mtp } = this.model;
    const tape = new Tape(this.backend, this.pool, false);
    for (const { sharded, feedForward } of draft ? [mtp!.layer] : layers) {
      if (!sharded) continue;
      tape.scope(() => {
        shardedFeedForward(tape, tape.alloc([0, this.config.hidden_size], 'f32'), feedForward, sharded);
        return undefined;
      });
    }
    tape.clear();
  }

  residentWeightBytes(): number {
    const pieces = weightsOf(this.model).flatMap((weight) => weight.pieces.flat());
    const inMemory = (bytes: Uint8Array | undefined) => (bytes ? this.backend.residentBytes(bytes) : 0);
    const bytes = pieces.reduce((sum, { codes, scales }) => sum + inMemory(codes) + inMemory(scales), 0);
    return Math.min(bytes, this.weightBytes); // pieces of a tensor share its scales
  }

  copyPage(from: number, to: number): void {
    this.latents.copyPage(from, to);
  }

  close(): void {
    this.releaseHeld();
  }

  /**
   * Runs one pass and computes the logits that are wanted.
   * @param weight of the last norm
   * @param forward gives the hidden states before it [M, D]
   */
  private run(batch: StepBatch, weight: Tensor, forward: (tape: Tape, plan: StepPlan) => Tensor): StepResult {
    const { attention } = this.model.layers[0]!;
    const plan = planStep(batch, this.config.max_position_embeddings, (cached, added) =>
      attentionForm(attention, cached, added),
    );
    const tape = new Tape(this.backend, this.pool, false);
    const x = tape.scope(() => forward(tape, plan));
    const { normed: hidden, value: logits } = this.normed(tape, [x], [weight], this.model.head, batch.wanted);
    this.pool.retain(hidden);
    this.pool.retain(logits);
    tape.clear();
    this.releaseHeld();
    this.held = [hidden, logits];
    return { hidden, logits };
  }

  private releaseHeld(): void {
    for (const tensor of this.held) this.pool.release(tensor);
    this.held = [];
  }

  /** [M, D]. */
  private embed(tape: Tape, tokens: Int32Array): Tensor {
    const x = tape.alloc([tokens.length, this.config.hidden_size], 'f32');
    this.backend.readRows(this.model.embedding, Tensor.i32(tokens), x);
    return x;
  }

  /**
   * Norms of parts [M, …] side by side, and the product of the rows `wanted` (all where absent) with a weight.
   * @returns [M, K], [wanted, N]
   */
  private normed(
    tape: Tape,
    parts: readonly Tensor[],
    norms: readonly Tensor[],
    w: StoredWeight,
    wanted?: Int32Array,
  ): { normed: Tensor; value: Tensor } {
    const eps = this.config.rms_norm_eps;
    const rows = parts[0]!.rows;
    if (!this.backend.normProject || rows > BLOCK_ROWS)
      return normProject(tape, parts, norms, eps, w, wanted);
    const normed = tape.alloc([rows, w.k], 'f32');
    const ids = wanted ?? Int32Array.from({ length: rows }, (_, row) => row);
    const value = tape.alloc([ids.length, w.n], 'f32');
    this.backend.normProject(parts, norms, eps, w, Tensor.i32(ids), normed, value);
    return { normed, value };
  }

  /** x [M, D] through one decoder layer, in place; appends to its pages. */
  private layer(tape: Tape, x: Tensor, w: LayerWeights, pages: LatentPages, plan: StepPlan): void {
    const [part, ...others] = plan.parts;
    const single = part?.kind === 'absorbed' && others.length === 0;
    const few = x.rows <= BLOCK_ROWS;
    tape.scope(() => {
      if (few && single && this.backend.attentionBlock) {
        this.backend.attentionBlock(x, w.attention, pages, { ...plan, rows: part.rows });
      } else attentionBlock(tape, x, w.attention, pages, plan);
      return undefined;
    });
    tape.scope(() => {
      if (w.sharded) shardedFeedForward(tape, x, w.feedForward, w.sharded);
      else if (few && this.backend.feedForwardBlock) this.backend.feedForwardBlock(x, w.feedForward);
      else feedForwardBlock(tape, x, w.feedForward);
      return undefined;
    });
  }
}
