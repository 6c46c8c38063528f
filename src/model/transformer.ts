import type { ModelConfig } from '../spec/model.js';
import { isMoeLayer } from '../spec/model.js';
import type { Recipe } from '../spec/precision.js';
import type { Backend } from '../tensor/backend.js';
import {
  add,
  concatColumns,
  crossEntropy,
  embedding,
  linear,
  rmsNorm,
  rowsOfLogits,
} from '../tensor/functions.js';
import { allocate, Parameter } from '../tensor/parameter.js';
import { type Steps, toEnd } from '../tensor/steps.js';
import type { Tape } from '../tensor/tape.js';
import { Tensor } from '../tensor/tensor.js';
import { attentionBlock } from './attention.js';
import {
  type Context,
  LANES,
  type Layout,
  type Recompute,
  type RouterState,
  type Weights,
} from './context.js';
import type { ExpertExchange, ExpertRange } from './exchange.js';
import { feedForward, mixtureOfExperts } from './moe.js';
import { layerOf, listParameters, type ParameterSpec } from './parameters.js';
import { ropeTable, softmaxScale } from './rope.js';

/** Tokens and targets of one step; T = sequences × length, flattened. */
export interface Batch extends Layout {
  /** i32 [T]. */
  inputs: Tensor;
  /** i32 [T]: the next token, negative where there is none. */
  targets: Tensor;
  /** Per MTP depth k = 1…: i32 [T], the token k ahead, any where its target is negative. */
  mtpInputs: Tensor[];
  /** Per MTP depth k = 1…: i32 [T], the token k+1 ahead, negative where there is none. */
  mtpTargets: Tensor[];
  /** Targets that the mean losses are over, where this is a part of a batch: of the main head, and of each MTP depth. */
  counted?: { main: number; mtp: readonly number[] };
}

/** Factors of the training loss [TR §2.2, §4.2]. */
export interface LossWeights {
  /** Multiplies everything, e.g. 1/micro-batches. */
  scale: number;
  /** λ of Multi-Token Prediction. */
  mtp: number;
  /** α of the sequence-wise balance loss. */
  balance: number;
}

/** Per-token losses of one pass: f32 [T], zero where ignored. */
export interface Losses {
  main: Tensor;
  mtp: Tensor[];
}

/** The DeepSeek transformer: parameters, buffers and the forward pass [TR §2]. */
export class Transformer {
  readonly parameters = new Map<string, Parameter>();
  /** One per decoder layer with experts, by layer index; MTP modules follow the main layers. */
  readonly routers = new Map<number, RouterState>();
  private readonly ropeTable: Tensor;
  private readonly softmaxScale: number;
  /** The ways to routed experts that are not here, one for each pass that overlaps; none where all are. */
  exchanges: readonly ExpertExchange[] = [];

  constructor(
    readonly config: ModelConfig,
    readonly backend: Backend,
    /** MTP modules are left out where nobody trains or drafts with them. */
    readonly mtpDepth: number = config.num_nextn_predict_layers,
    /** The routed experts of each layer that this process holds; all by default. */
    readonly experts: ExpertRange = { from: 0, to: config.n_routed_experts },
  ) {
    for (const entry of listParameters(config)) {
      const layer = layerOf(entry.name);
      if (layer >= config.num_hidden_layers + mtpDepth) continue;
      const value = allocate(backend, this.shapeHere(entry), 'f32');
      if (entry.kind === 'buffer') this.addRouter(layer, value);
      else this.parameters.set(entry.name, new Parameter(entry.name, value, backend));
    }
    for (let l = 0; l < config.num_hidden_layers + mtpDepth; l++) {
      if (isMoeLayer(config, l) && !this.routers.has(l))
        this.addRouter(l, allocate(backend, [config.n_routed_experts], 'f32'));
    }
    this.ropeTable = ropeTable(config, config.max_position_embeddings);
    this.softmaxScale = softmaxScale(config);
  }

  /** What the layers of one pass share. @param lane as in `Context` */
  context(tape: Tape, recipe: Recipe, layout: Layout, recompute: Recompute, lane = 0): Context {
    const { config, ropeTable, softmaxScale } = this;
    const exchange = this.exchanges[lane];
    return { tape, config, recipe, layout, recompute, ropeTable, softmaxScale, exchange, lane };
  }

  /**
   * inputs i32 [T] → hidden states after the final norm [T, D].
   * @param visit is shown what each decoder layer gives [T, D]
   */
  forward(ctx: Context, inputs: Tensor, visit?: (layer: number, hidden: Tensor) => void): Tensor {
    return toEnd(this.forwardSteps(ctx, inputs, visit));
  }

  private *forwardSteps(
    ctx: Context,
    inputs: Tensor,
    visit?: (layer: number, hidden: Tensor) => void,
  ): Steps<Tensor> {
    const { tape, config } = ctx;
    let h = this.embed(ctx, inputs);
    for (let l = 0; l < config.num_hidden_layers; l++) {
      h = yield* tape.scopeSteps(this.layer(ctx, l, h));
      visit?.(l, h);
    }
    return this.finalNorm(ctx, h);
  }

  /** [T, D] → [T, D]. */
  finalNorm(ctx: Context, h: Tensor): Tensor {
    return rmsNorm(ctx.tape, h, this.weight('model.norm.weight'), this.config.rms_norm_eps);
  }

  /** Training or evaluation pass: losses per token of the main head and of each MTP module. */
  losses(ctx: Context, batch: Batch, weights: LossWeights): Losses {
    return toEnd(this.lossSteps(ctx, batch, weights));
  }

  /** The same, with a pause wherever it would wait for messages. */
  *lossSteps(ctx: Context, batch: Batch, weights: LossWeights): Steps<Losses> {
    for (const router of this.routers.values()) router.balanceFactor = weights.balance * weights.scale;
    let hidden = yield* this.forwardSteps(ctx, batch.inputs);
    const { main: mainCount, mtp: mtpCounts } = batch.counted ?? {};
    const main = this.headLoss(ctx, hidden, batch.targets, weights.scale, mainCount);
    const mtp: Tensor[] = [];
    for (let k = 1; k <= this.mtpDepth; k++) {
      hidden = yield* this.mtpSteps(ctx, k, hidden, batch.mtpInputs[k - 1]!);
      mtp.push(
        this.headLoss(
          ctx,
          hidden,
          batch.mtpTargets[k - 1]!,
          (weights.scale * weights.mtp) / this.mtpDepth,
          mtpCounts?.[k - 1],
        ),
      );
    }
    return { main, mtp };
  }

  /** Losses per token of the main head for its hidden states [T, D]: f32 [T]. */
  mainLosses(ctx: Context, hidden: Tensor, targets: Tensor): Tensor {
    return this.headLoss(ctx, hidden, targets, 1);
  }

  /** The most likely next token for hidden states [T, D] of the main model or an MTP module: i32 [T]; the lowest on a tie. */
  mostLikely(ctx: Context, hidden: Tensor): Int32Array {
    const tokens = new Int32Array(hidden.rows);
    const step = rowsOfLogits(this.config.vocab_size);
    for (let from = 0; from < hidden.rows; from += step) {
      const rows = hidden.rowsView(from, Math.min(from + step, hidden.rows));
      const best = ctx.tape.scopeValue(() => largestOfRows(this.logits(ctx, rows)));
      tokens.set(best, from);
    }
    return tokens;
  }

  /** Logits f32 [T, V] of hidden states [T, D]. */
  logits(ctx: Context, hidden: Tensor): Tensor {
    return linear(ctx.tape, hidden, this.head(), ctx.recipe.head, { output: 'f32' });
  }

  /**
   * The k-th MTP module [TR §2.2]: hidden states of the depth before (after their norm) and the embeddings of
   * the tokens k ahead i32 [T] → hidden states [T, D] after shared_head.norm. Order of the concatenation:
   * `MTP_PROJECTION_ORDER`.
   */
  mtpModule(ctx: Context, k: number, hidden: Tensor, tokens: Tensor): Tensor {
    return toEnd(this.mtpSteps(ctx, k, hidden, tokens));
  }

  private mtpSteps(ctx: Context, k: number, hidden: Tensor, tokens: Tensor): Steps<Tensor> {
    return ctx.tape.scopeSteps(this.mtpBody(ctx, ctx.config.num_hidden_layers + k - 1, hidden, tokens));
  }

  private *mtpBody(ctx: Context, layer: number, hidden: Tensor, tokens: Tensor): Steps<Tensor> {
    const { tape, config, recipe } = ctx;
    const w = this.weightsOf(`model.layers.${layer}.`);
    const eps = config.rms_norm_eps;
    const e = rmsNorm(tape, this.embed(ctx, tokens), w.get('enorm.weight'), eps);
    const h = rmsNorm(tape, hidden, w.get('hnorm.weight'), eps);
    const joined = linear(tape, concatColumns(tape, e, h), w.get('eh_proj.weight'), recipe.linear);
    const out = yield* this.layer(ctx, layer, joined);
    return rmsNorm(tape, out, w.get('shared_head.norm.weight'), eps);
  }

  /** One decoder layer: h + attention(RMSNorm(h)), then + FFN or MoE of its norm. */
  private *layer(ctx: Context, index: number, x: Tensor): Steps<Tensor> {
    const { tape } = ctx;
    const attended = tape.scope(() => {
      const u = this.norm(ctx, index, 'input_layernorm', x);
      return add(tape, x, attentionBlock(ctx, this.weightsOf(`model.layers.${index}.self_attn.`), u));
    });
    return yield* tape.scopeSteps(this.afterAttention(ctx, index, attended));
  }

  /** x + FFN or MoE of its norm [T, D]. */
  private *afterAttention(ctx: Context, index: number, x: Tensor): Steps<Tensor> {
    const u = this.norm(ctx, index, 'post_attention_layernorm', x);
    return add(ctx.tape, x, yield* this.mlp(ctx, index, u));
  }

  private norm({ tape, config, recompute }: Context, layer: number, name: string, x: Tensor): Tensor {
    const weight = this.weight(`model.layers.${layer}.${name}.weight`);
    return rmsNorm(tape, x, weight, config.rms_norm_eps, recompute.rmsNorm);
  }

  /** The weights under `prefix`. */
  weightsOf(prefix: string): Weights {
    return {
      get: (name) => this.weight(prefix + name),
      find: (name) => this.parameters.get(prefix + name),
    };
  }

  /** ids i32 [T] → [T, D]. */
  embed(ctx: Context, ids: Tensor): Tensor {
    return embedding(ctx.tape, ids, this.weight('model.embed_tokens.weight'), activationType(ctx.recipe));
  }

  /** u [T, D] → FFN or MoE of decoder layer `index` [T, D]. */
  private *mlp(ctx: Context, index: number, u: Tensor): Steps<Tensor> {
    const w = this.weightsOf(`model.layers.${index}.mlp.`);
    const router = this.routers.get(index);
    return router ? yield* mixtureOfExperts(ctx, w, u, router) : feedForward(ctx, w, '', u);
  }

  /** @param valid targets that the mean is over; those of `targets` by default */
  private headLoss(
    ctx: Context,
    hidden: Tensor,
    targets: Tensor,
    weight: number,
    valid: number = countTargets(targets),
  ): Tensor {
    return crossEntropy(ctx.tape, hidden, this.head(), targets, ctx.recipe.head, weight / Math.max(valid, 1));
  }

  /** Elements of a parameter that come before those of this process: of experts that others hold. */
  elementsBefore({ value }: Parameter): number {
    const { from, to } = this.experts;
    return value.shape.length === 3 ? (from * value.size) / (to - from) : 0;
  }

  /** A parameter's shape in this process. */
  private shapeHere({ shape, part }: ParameterSpec): readonly number[] {
    return part === 'routedExperts' ? [this.experts.to - this.experts.from, ...shape.slice(1)] : shape;
  }

  private head(): Parameter {
    return this.weight(this.config.tie_word_embeddings ? 'model.embed_tokens.weight' : 'lm_head.weight');
  }

  private weight(name: string): Parameter {
    const found = this.parameters.get(name);
    if (!found) throw new Error(`the model has no parameter ${name}`);
    return found;
  }

  private addRouter(layer: number, bias: Tensor): void {
    this.backend.fill(bias, 0);
    this.routers.set(layer, {
      bias,
      seen: Array.from({ length: LANES }, () => ({
        load: Tensor.zeros([this.config.n_routed_experts], 'i32'),
        balanceLoss: Tensor.zeros([1], 'f32'),
      })),
      balanceFactor: 0,
    });
  }
}

/** Element type of activations under a recipe. */
export const activationType = (recipe: Recipe): 'f32' | 'bf16' =>
  recipe.activations === 'fp32' ? 'f32' : 'bf16';

/** Targets that are not ignored. */
export const countTargets = (targets: Tensor): number =>
  (targets.data as Int32Array).reduce((n, t) => n + (t >= 0 ? 1 : 0), 0);

/** Column of the largest value of each row of f32 [T, V]; the first of equals. */
function largestOfRows(logits: Tensor): Int32Array {
  const { rows, cols } = logits;
  const values = logits.data as Float32Array;
  const columns = new Int32Array(rows);
  for (let row = 0; row < rows; row++) {
    let largest = Number.NEGATIVE_INFINITY;
    for (let i = 0, at = row * cols; i < cols; i++, at++) {
      if (values[at]! > largest) {
        largest = values[at]!;
        columns[row] = i;
      }
    }
  }
  return columns;
}
