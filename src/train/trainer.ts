import { type Batch, Transformer } from '../model/transformer.js';
import type { ModelConfig } from '../spec/model.js';
import type { Recipe } from '../spec/precision.js';
import type { Backend } from '../tensor/backend.js';
import type { Observer } from '../tensor/observer.js';
import { Pool } from '../tensor/pool.js';
import { Tape } from '../tensor/tape.js';
import { Tensor } from '../tensor/tensor.js';
import { LoadBalancer, maximalViolation } from './balance.js';
import { recipeOf, type TrainConfig } from './config.js';
import { Optimizer } from './optimizer.js';
import { biasUpdateSpeed, learningRate, mtpWeight } from './schedule.js';
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
  readonly optimizer: Optimizer;
  readonly pool: Pool;
  readonly recipe: Recipe;
  private readonly balancer: LoadBalancer;
  /** Optimizer steps done; bad steps do not count. */
  step = 0;

  constructor(
    readonly config: TrainConfig,
    modelConfig: ModelConfig,
    private readonly backend: Backend,
  ) {
    this.recipe = recipeOf(config);
    this.model = new Transformer(modelConfig, backend);
    this.optimizer = new Optimizer(
      backend,
      this.model.parameters,
      config,
      this.recipe.moments === 'bf16' ? 'bf16' : 'f32',
    );
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
    const sums = new ValidationSums(this.model);
    for (const batch of batches) {
      const tape = new Tape(this.backend, this.pool, false, sums.observer);
      const ctx = this.model.context(tape, this.recipe, batch, this.config.recompute);
      tape.scopeValue(() => sums.add(ctx, batch));
      tape.clear();
    }
    return sums.means();
  }

  /** Forward and backward of one micro-batch, adding to the gradients. */
  private accumulate(batch: Batch, scale: number, observer?: Observer): { loss: number; mtpLoss: number[] } {
    const tape = new Tape(this.backend, this.pool, true, observer);
    try {
      const ctx = this.model.context(tape, this.recipe, batch, this.config.recompute);
      const weights = { scale, mtp: mtpWeight(this.config, this.step), balance: this.config.balance.alpha };
      const losses = this.model.losses(ctx, batch, weights);
      const mean = (values: Tensor, targets: Tensor) => {
        const { sum, count } = sumOf(values, targets);
        return (sum / Math.max(count, 1)) * scale;
      };
      const result = {
        loss: mean(losses.main, batch.targets),
        mtpLoss: losses.mtp.map((values, k) => mean(values, batch.mtpTargets[k]!)),
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
    return {
      step: this.step,
      loss: add((s) => s.loss),
      mtpLoss: sums[0]!.mtpLoss.map((_, k) => add((s) => s.mtpLoss[k]!)),
      balanceLoss: routers.reduce((a, r) => a + r.balanceLoss.data[0]!, 0) / Math.max(routers.length, 1),
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
