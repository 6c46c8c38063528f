import type { Team } from '../expert/team.js';
import { LANES } from '../model/context.js';
import type { ExpertExchange } from '../model/exchange.js';
import { activationType, type Batch, type Losses, Transformer } from '../model/transformer.js';
import type { ModelConfig } from '../spec/model.js';
import type { Recipe } from '../spec/precision.js';
import type { Backend } from '../tensor/backend.js';
import type { Observer } from '../tensor/observer.js';
import { Pool } from '../tensor/pool.js';
import { inTurn, type Steps } from '../tensor/steps.js';
import { Tape } from '../tensor/tape.js';
import { Tensor } from '../tensor/tensor.js';
import { LoadBalancer, maximalViolation } from './balance.js';
import { recipeOf, type TrainConfig, tokensPerStep } from './config.js';
import { Optimizer, type StepOptimizer } from './optimizer.js';
import { partOf } from './part.js';
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

/** Losses of one pass, as its share of the step's. */
type PassLoss = Pick<StepResult, 'loss' | 'mtpLoss'>;

/** Model, optimizer and load balancer: everything that one step changes. */
export class Trainer {
  readonly model: Transformer;
  readonly optimizer: StepOptimizer;
  readonly pool: Pool;
  readonly recipe: Recipe;
  private readonly balancer: LoadBalancer;
  /** Parts that a micro-batch is cut into, which overlap: while one computes, the other's messages fly. */
  readonly lanes: number;
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
    this.lanes = team && overlaps(team, config) ? LANES : 1;
    if (team) this.model.exchanges = this.openExchanges(team, modelConfig);
    const moments = this.recipe.moments === 'bf16' ? 'bf16' : 'f32';
    const { parameters } = this.model;
    this.optimizer = team
      ? new ShardedOptimizer(backend, parameters, config, moments, team)
      : new Optimizer(backend, parameters, config, moments);
    // Of rows that come from other ranks there are never as many.
    this.pool = new Pool(backend, team ? 'quarters' : 'pages');
    this.balancer = new LoadBalancer(this.model.routers);
  }

  /**
   * One optimizer step over the micro-batches; parameters stay as they were if anything is not finite.
   * @param observer is shown the tensors of the first micro-batch, or of its first part
   */
  trainStep(batches: readonly Batch[], observer?: Observer): StepResult {
    const passes = batches.flatMap((batch, i) =>
      this.accumulate(batch, 1 / batches.length, i === 0 ? observer : undefined),
    );
    const result = this.summarise(passes);
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

  /** Passes that see a part each of every micro-batch's sequences. */
  private get parts(): number {
    return this.lanes * (this.team?.size ?? 1);
  }

  /** One for each lane; the first takes whole micro-batches too. */
  private openExchanges(team: Team, model: ModelConfig): ExpertExchange[] {
    const tokens = tokensPerStep(this.config) / this.config.microBatches / team.size;
    return Array.from({ length: this.lanes }, (_, lane) => {
      const most = lane === 0 ? tokens : tokens / this.lanes;
      return team.openExchange(model, this.backend, most, activationType(this.recipe));
    });
  }

  /** Forward and backward of one micro-batch, adding to the gradients. */
  private accumulate(batch: Batch, scale: number, observer?: Observer): PassLoss[] {
    if (this.lanes === 1) return inTurn([this.pass(batch, 0, scale, observer)]);
    return inTurn(
      Array.from({ length: this.lanes }, (_, lane) => {
        const part = partOf(batch, { index: lane, of: this.lanes });
        return this.pass(part, lane, scale, lane === 0 ? observer : undefined);
      }),
    );
  }

  private *pass(batch: Batch, lane: number, scale: number, observer?: Observer): Steps<PassLoss> {
    const { model, config } = this;
    const tape = new Tape(this.backend, this.pool, true, observer);
    try {
      const ctx = model.context(tape, this.recipe, batch, config.recompute, lane);
      // α is of this pass's share of the sequences.
      const balance = config.balance.alpha / this.parts;
      const weights = { scale, mtp: mtpWeight(config, this.step), balance };
      const losses = yield* model.lossSteps(ctx, batch, weights);
      const result = meanLosses(losses, batch, scale);
      this.balancer.collect(lane);
      yield* tape.backwardSteps();
      return result;
    } finally {
      tape.clear();
    }
  }

  private summarise(passes: readonly PassLoss[]): StepResult {
    const add = (pick: (pass: PassLoss) => number) => passes.reduce((sum, pass) => sum + pick(pass), 0);
    const seen = [...this.model.routers.values()].flatMap((router) => router.seen.slice(0, this.lanes));
    const balance = seen.reduce((sum, { balanceLoss }) => sum + balanceLoss.data[0]!, 0);
    const mtp = passes[0]!.mtpLoss.map((_, k) => add((pass) => pass.mtpLoss[k]!));
    const totals = Float64Array.of(
      add(({ loss }) => loss),
      balance / Math.max(seen.length, 1) / (this.team?.size ?? 1),
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

/** Sums of losses over what the means are over, times `scale`. */
function meanLosses({ main, mtp }: Losses, batch: Batch, scale: number): PassLoss {
  const mean = (values: Tensor, targets: Tensor, counted?: number) => {
    const { sum, count } = sumOf(values, targets);
    return (sum / Math.max(counted ?? count, 1)) * scale;
  };
  const { counted } = batch;
  return {
    loss: mean(main, batch.targets, counted?.main),
    mtpLoss: mtp.map((values, k) => mean(values, batch.mtpTargets[k]!, counted?.mtp[k])),
  };
}

/** Sequences of one micro-batch that one of `ranks` ranks has. */
export const sequencesOfRank = ({ batchSequences, microBatches }: TrainConfig, ranks: number): number =>
  batchSequences / microBatches / ranks;

/** Whether micro-batches go in halves that overlap: as asked for, otherwise where messages go to other nodes and halves are whole. */
function overlaps(team: Team, config: TrainConfig): boolean {
  const even = sequencesOfRank(config, team.size) % LANES === 0;
  return team.settings.overlap ?? (even && team.layout.nodes > 1);
}

/** Backward runs from the loss down: the last parameter with a bad gradient is where it began. */
function badGradients(parameters: readonly string[]): string {
  return `the gradient of ${parameters.at(-1)} is not finite (${parameters.length} parameters affected)`;
}
