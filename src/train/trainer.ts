import type { Team } from '../expert/team.js';
import type { ExpertExchange } from '../model/exchange.js';
import { activationType, type Batch, Transformer } from '../model/transformer.js';
import type { ModelConfig } from '../spec/model.js';
import type { Recipe } from '../spec/precision.js';
import type { Backend } from '../tensor/backend.js';
import type { Observer } from '../tensor/observer.js';
import { Pool } from '../tensor/pool.js';
import { Tape } from '../tensor/tape.js';
import { Tensor } from '../tensor/tensor.js';
import { LoadBalancer, maximalViolation } from './balance.js';
import { recipeOf, type TrainConfig, tokensPerStep } from './config.js';
import { Optimizer, type StepOptimizer } from './optimizer.js';
import { biasUpdateSpeed, learningRate, mtpWeight } from './schedule.js';
import { ShardedOptimizer } from './sharded-optimizer.js';
import { sumOf, type Validation, ValidationSums } from './validation.js';

/** What one optimizer step reports. */
export interface StepResult {
  /** Steps done, this one included. */
  step: number;
  /** Mean −log p of the next token, nats. */
  loss: number;
  /** The same for each MTP depth. */
  mtpLoss: number[];
  /** Σ f_e·P_e averaged over routers; 1 is perfect balance. */
  balanceLoss: number;
  gradientNorm: number;
  learningRate: number;
  /** Per layer with experts: (largest load − mean)/mean. */
  loadViolation: number[];
  /** Set where the step was given up because of a value that is not finite: where it showed first. */
  nonFinite: string | undefined;
}

/** Model, optimizer and load balancer: everything that one step changes. */
export class Trainer {
  readonly model: Transformer;
  readonly optimizer: StepOptimizer;
  readonly pool: Pool;
  readonly recipe: Recipe;
  private readonly balancer: LoadBalancer;
  /** Optimizer steps done; bad steps do not count. */
  step = 0;

  constructor(
    readonly config: TrainConfig,
    modelConfig: ModelConfig,
    private readonly backend: Backend,
    /** The ranks that train the model together; this process alone without. */
    readonly team?: Team,
  ) {
    this.recipe = recipeOf(config);
    this.model = new Transformer(modelConfig, backend, undefined, team?.experts);
    this.model.exchange = team && this.openExchange(team, modelConfig);
    const moments = this.recipe.moments === 'bf16' ? 'bf16' : 'f32';
    const { parameters } = this.model;
    this.optimizer = team
      ? new ShardedOptimizer(backend, parameters, config, moments, team.world, team.replicas)
      : new Optimizer(backend, parameters, config, moments);
    this.pool = new Pool(backend);
    this.balancer = new LoadBalancer(this.model.routers);
  }

  /**
   * One optimizer step over the micro-batches; parameters stay as they were if anything is not finite.
   * @param observer is shown the tensors of the first micro-batch
   */
  trainStep(batches: readonly Batch[], observer?: Observer): StepResult {
    const sums = batches.map((batch, i) =>
      this.accumulate(batch, 1 / batches.length, i === 0 ? observer : undefined),
    );
    const result = this.summarise(sums);
    const gradients = this.optimizer.gradientNorm();
    result.gradientNorm = gradients.norm;
    if (!Number.isFinite(result.loss) || gradients.nonFinite.length > 0) {
      result.nonFinite = Number.isFinite(result.loss)
        ? badGradients(gradients.nonFinite)
        : `the loss is ${result.loss}, ${this.firstBadLayer(batches)}`;
      this.optimizer.clearGradients();
      this.balancer.discard();
      return result;
    }
    if (this.team) this.balancer.share((counts) => this.team!.sum(counts));
    this.optimizer.step(this.step, result.learningRate, gradients.norm);
    result.loadViolation = this.balancer
      .update(biasUpdateSpeed(this.config, this.step))
      .map(maximalViolation);
    this.step++;
    result.step = this.step;
    return result;
  }

  /** What the model is worth on held-out batches. */
  validate(batches: readonly Batch[]): Validation {
    const sums = new ValidationSums(this.model, this.team);
    for (const batch of batches) {
      const tape = new Tape(this.backend, this.pool, false, sums.observer);
      const ctx = this.model.context(tape, this.recipe, batch, this.config.recompute);
      tape.scopeValue(() => sums.add(ctx, batch));
      tape.clear();
    }
    return sums.means();
  }

  /** α, of this process's share of the sequences. */
  private get balanceFactor(): number {
    return this.config.balance.alpha / (this.team?.size ?? 1);
  }

  private openExchange(team: Team, model: ModelConfig): ExpertExchange {
    const tokens = tokensPerStep(this.config) / this.config.microBatches / team.size;
    return team.openExchange(model, this.backend, tokens, activationType(this.recipe));
  }

  /** Forward and backward of one micro-batch, adding to the gradients. */
  private accumulate(batch: Batch, scale: number, observer?: Observer): { loss: number; mtpLoss: number[] } {
    const tape = new Tape(this.backend, this.pool, true, observer);
    try {
      const ctx = this.model.context(tape, this.recipe, batch, this.config.recompute);
      const weights = { scale, mtp: mtpWeight(this.config, this.step), balance: this.balanceFactor };
      const losses = this.model.losses(ctx, batch, weights);
      const mean = (values: Tensor, targets: Tensor, counted?: number) => {
        const { sum, count } = sumOf(values, targets);
        return (sum / Math.max(counted ?? count, 1)) * scale;
      };
      const { counted } = batch;
      const result = {
        loss: mean(losses.main, batch.targets, counted?.main),
        mtpLoss: losses.mtp.map((values, k) => mean(values, batch.mtpTargets[k]!, counted?.mtp[k])),
      };
      this.balancer.collect();
      tape.backward();
      return result;
    } finally {
      tape.clear();
    }
  }

  private summarise(sums: { loss: number; mtpLoss: number[] }[]): StepResult {
    const add = (pick: (s: { loss: number; mtpLoss: number[] }) => number) =>
      sums.reduce((a, s) => a + pick(s), 0);
    const routers = [...this.model.routers.values()];
    const balance = routers.reduce((a, r) => a + r.balanceLoss.data[0]!, 0) / Math.max(routers.length, 1);
    const mtp = sums[0]!.mtpLoss.map((_, k) => add((s) => s.mtpLoss[k]!));
    const totals = Float64Array.of(
      add((s) => s.loss),
      balance / (this.team?.size ?? 1),
      ...mtp,
    );
    this.team?.sum(totals);
    const [loss, balanceLoss, ...mtpLoss] = totals as unknown as [number, number, ...number[]];
    return {
      step: this.step,
      loss,
      mtpLoss,
      balanceLoss,
      gradientNorm: 0,
      learningRate: learningRate(this.config, this.step),
      loadViolation: [],
      nonFinite: undefined,
    };
  }

  /** Where values first stop being finite, found by running forward once more. */
  private firstBadLayer(batches: readonly Batch[]): string {
    const square = Tensor.zeros([1], 'f32');
    for (const batch of batches) {
      let bad: number | undefined;
      const tape = new Tape(this.backend, this.pool, false);
      const ctx = this.model.context(tape, this.recipe, batch, this.config.recompute);
      const visit = (layer: number, hidden: Tensor) => {
        const values = tape.alloc(hidden.shape, 'f32');
        this.backend.cast(hidden, values);
        this.backend.sumOfSquares(values, square);
        if (!Number.isFinite(square.data[0]!)) bad ??= layer;
      };
      tape.scopeValue(() => this.model.forward(ctx, batch.inputs, visit));
      tape.clear();
      if (bad !== undefined) return `values are not finite from layer ${bad} on`;
    }
    return 'values of all decoder layers are finite: look at the output head and the MTP modules';
  }
}

/** Backward runs from the loss down: the last parameter with a bad gradient is where it began. */
function badGradients(parameters: readonly string[]): string {
  return `the gradient of ${parameters.at(-1)} is not finite (${parameters.length} parameters affected)`;
}
