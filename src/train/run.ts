import path from 'node:path';
import { peakFlops } from '../backend/peak.js';
import { selectBackend } from '../backend/select.js';
import { UserError } from '../errors.js';
import type { Team } from '../expert/team.js';
import { writeFileAtomicallySync, writeFully } from '../files.js';
import { initialise } from '../model/initialise.js';
import { countParameters } from '../model/parameters.js';
import { trainingFlops } from '../plan/flops.js';
import type { Progress } from '../report/progress.js';
import type { Ui } from '../report/ui.js';
import { count, rate } from '../report/units.js';
import type { Backend } from '../tensor/backend.js';
import type { Observer } from '../tensor/observer.js';
import { CAPTURE_FOLDER } from './capture.js';
import { recipeOf, type TrainConfig, tokensPerStep } from './config.js';
import { TrainingData } from './data.js';
import { lossFigure } from './figure.js';
import { Health } from './health.js';
import { type Ledger, measureLedger, predictLedger } from './ledger.js';
import { MetricsLog, readMetrics } from './metrics.js';
import { checkReplicas } from './replicas.js';
import { openRun, type RunFile, type RunOptions } from './run-file.js';
import { saveWhole } from './save-whole.js';
import { restoreLatest, saveState } from './state.js';
import { removeCapturesAfter, StepCapture } from './step-capture.js';
import { TensorBoardWriter } from './tensorboard.js';
import { type StepResult, Trainer } from './trainer.js';
import { gemmVerifier, roundingOf } from './verify.js';

export interface TrainResult {
  out: string;
  /** Optimizer steps done in all, those of earlier processes included. */
  steps: number;
  /** Why the process ended. */
  ended: 'complete' | 'stop-after' | 'signal';
  loss: {
    /** Of the first step of this process. */
    first: number;
    /** Mean of the last ten steps. */
    final: number;
    /** Mean over the validation batches, after the last step. */
    validation: number;
  };
  /** Median over the steps of this process, whole steps, validation and saving apart. */
  tokensPerSecond: number;
  /** Model FLOPs over what this machine's fastest BF16 unit can do; null without the native backend. */
  mfu: number | null;
  /** Largest resident set of the process. */
  peakBytes: number;
  seconds: number;
  parameters: { total: number; active: number };
  /** Of this process; predicted where it is the only one. */
  memory: { predicted: Ledger | null; measured: Ledger; runtimeBytes: number };
  /** Loss per step of this process. */
  curve: number[];
}

/** Trains as `options` say; see `RunOptions`. @throws UserError */
export async function runTraining(options: RunOptions, ui: Ui): Promise<TrainResult> {
  const run = openRun(options);
  const backend = selectBackend(options.backend ?? 'auto', options.threads);
  return trainRun(run, backend, await TrainingData.open(run, ui), ui, options);
}

/** What goes with training over several ranks. */
export interface TeamTraining {
  team: Team;
  /** Steps between comparisons of what ranks hold in common; 0 for none. */
  digestEvery: number;
}

/** Trains with data that is there; closes it. Over ranks, collective. @throws UserError */
export async function trainRun(
  run: RunFile,
  backend: Backend,
  data: TrainingData,
  ui: Ui,
  options: RunOptions,
  ranks?: TeamTraining,
): Promise<TrainResult> {
  const session = new Session(run, backend, data, ui, options, ranks);
  try {
    return await session.loop();
  } finally {
    session.close();
    data.close();
  }
}

/** One process's part of a run. */
class Session {
  private readonly trainer: Trainer;
  private readonly predicted: Ledger | null;
  /** Rank 0 alone writes them. */
  private readonly metrics: MetricsLog | undefined;
  private readonly board: TensorBoardWriter | undefined;
  private readonly health = new Health();
  private readonly started = performance.now();
  private readonly runtimeBytes = process.memoryUsage.rss();
  private readonly curve: number[] = [];
  private readonly speeds: number[] = [];
  private readonly progress: Progress;
  /** Steps in all when this process is done. */
  private readonly end: number;
  private savedStep: number | undefined;
  private validated: { step: number; loss: number } | undefined;
  private signalled = false;
  private readonly onSignal = () => {
    this.signalled = true;
    this.progress.note('stopping after this step; the run is saved');
  };

  constructor(
    private readonly run: RunFile,
    private readonly backend: Backend,
    private readonly data: TrainingData,
    ui: Ui,
    private readonly options: RunOptions,
    private readonly ranks: TeamTraining | undefined,
  ) {
    this.progress = ui.progress('train');
    this.predicted = ranks ? null : predictLedger(run.config, run.model, backend);
    this.trainer = new Trainer(run.config, run.model, backend, ranks?.team);
    this.restore(options.resume ?? false);
    this.end = Math.min(run.config.steps, this.trainer.step + (options.stopAfter ?? run.config.steps));
    if (ranks?.team.leads !== false) {
      removeCapturesAfter(this.captures, this.trainer.step);
      this.metrics = MetricsLog.open(path.join(run.out, 'metrics.jsonl'), this.trainer.step);
      this.board = new TensorBoardWriter(run.out);
      this.board.rewind(this.trainer.step);
    }
    process.on('SIGINT', this.onSignal).on('SIGTERM', this.onSignal);
  }

  async loop(): Promise<TrainResult> {
    const { trainer } = this;
    while (trainer.step < this.end && !this.isTold()) {
      const before = trainer.step;
      this.oneStep();
      if (trainer.step > before) await this.duties(trainer.step);
      // Signals and timers get their turn between steps.
      await new Promise((resolve) => setImmediate(resolve));
    }
    if (this.savedStep !== trainer.step) await this.save();
    const validation = this.validated?.step === trainer.step ? this.validated.loss : this.validate();
    saveWhole(this.run.out, trainer);
    if (this.metrics) this.draw();
    return this.result(validation);
  }

  close(): void {
    // Once told to stop, further signals change nothing until the process has ended.
    if (!this.signalled) process.off('SIGINT', this.onSignal).off('SIGTERM', this.onSignal);
    this.progress.end();
    this.metrics?.close();
    this.board?.close();
  }

  /** What falls due after so many steps. */
  private async duties(done: number): Promise<void> {
    if (this.ranks && done % this.ranks.digestEvery === 0) await checkReplicas(this.ranks.team, this.trainer);
    if (done % this.config.validateEvery === 0) this.validate();
    if (done % this.config.checkpointEvery === 0) await this.save();
  }

  /** Whether a signal asks this process, or another rank, to stop. */
  private isTold(): boolean {
    return this.ranks ? this.ranks.team.any(this.signalled) : this.signalled;
  }

  /** Fresh weights, or the newest whole checkpoint. */
  private restore(resume: boolean): void {
    const saved = resume
      ? restoreLatest(this.checkpoints, this.trainer, (line) => this.progress.note(line))
      : undefined;
    this.savedStep = saved?.step;
    if (saved) this.data.restore(saved.data);
    else initialise(this.trainer.model, this.config.seed);
    if (resume)
      this.progress.note(
        saved ? `resuming after step ${saved.step}` : 'no checkpoint yet; starting from step 0',
      );
  }

  private oneStep(): void {
    const started = performance.now();
    const capture = this.captureOfNextStep();
    const observer = capture?.observer ?? this.verifierOfNextStep();
    const result = this.trainer.trainStep(this.data.next(this.config.microBatches), observer);
    const speed = (tokensPerStep(this.config) * 1000) / (performance.now() - started);
    if (result.nonFinite) {
      this.recover(result);
      return;
    }
    this.health.judge(true);
    capture?.write(this.captures);
    this.curve.push(result.loss);
    this.speeds.push(speed);
    this.report(result, speed);
    this.progress.update({
      done: result.step,
      total: this.config.steps,
      details: [`loss ${result.loss.toFixed(3)}`, rate(speed, 'tokens')],
    });
  }

  private captureOfNextStep(): StepCapture | undefined {
    const step = this.trainer.step + 1;
    const { capture, captureEvery } = this.options;
    const due = captureEvery !== undefined && step % captureEvery === 0;
    const last = step === this.end && (capture || captureEvery !== undefined);
    return due || last ? new StepCapture(this.run.model, step) : undefined;
  }

  private verifierOfNextStep(): Observer | undefined {
    const { verifyEvery } = this.options;
    const step = this.trainer.step + 1;
    return verifyEvery !== undefined && step % verifyEvery === 0
      ? gemmVerifier(step, roundingOf(this.trainer.recipe))
      : undefined;
  }

  /** After a step that was given up: go on, or back to the last checkpoint with the data that follows. */
  private recover(result: StepResult): void {
    this.progress.note(`step ${result.step + 1} is not counted: ${result.nonFinite}`);
    const verdict = this.health.judge(false);
    if (verdict === 'continue') return;
    const saved =
      verdict === 'rollback'
        ? restoreLatest(this.checkpoints, this.trainer, (line) => this.progress.note(line))
        : undefined;
    if (!saved) {
      throw new UserError(
        `${this.run.out}: training does not recover from values that are not finite (${result.nonFinite}); ` +
          'lower learningRate or take --precision bf16, and start again',
      );
    }
    this.metrics?.rewind(saved.step);
    this.board?.rewind(saved.step);
    if (this.metrics) removeCapturesAfter(this.captures, saved.step);
    this.progress.note(
      `three bad steps in a row: back to the checkpoint of step ${saved.step}, skipping their data`,
    );
  }

  private validate(): number {
    const { step } = this.trainer;
    const { loss, mtpAcceptance, nodesPerToken } = this.trainer.validate(this.data.validation());
    this.validated = { step, loss };
    this.metrics?.append({ step, validationLoss: loss, mtpAcceptance, nodesPerToken });
    this.board?.scalars(step, {
      'loss/validation': loss,
      ...perDepth('acceptance', mtpAcceptance),
      ...(nodesPerToken === undefined ? {} : { nodesPerToken }),
    });
    this.progress.note(
      `step ${step}: validation loss ${loss.toFixed(4)} (perplexity ${Math.exp(loss).toFixed(1)})`,
    );
    return loss;
  }

  private async save(): Promise<void> {
    await saveState(this.checkpoints, this.trainer, this.data.state(), this.config.keepCheckpoints);
    this.savedStep = this.trainer.step;
  }

  /** `loss.svg` beside the model. */
  private draw(): void {
    const metrics = readMetrics(path.join(this.run.out, 'metrics.jsonl'));
    const { total } = countParameters(this.run.model);
    const title = `${count(total)} parameters in ${recipeOf(this.config).name}`;
    const svg = Buffer.from(lossFigure(metrics, title));
    writeFileAtomicallySync(path.join(this.run.out, 'loss.svg'), (fd) => writeFully(fd, svg, 0));
  }

  private report(result: StepResult, tokensPerSecond: number): void {
    const { step, loss, mtpLoss, balanceLoss, gradientNorm, learningRate, loadViolation } = result;
    const maxLoadViolation = Math.max(0, ...loadViolation);
    const values = { loss, balanceLoss, gradientNorm, learningRate, maxLoadViolation, tokensPerSecond };
    this.metrics?.append({
      step,
      ...values,
      loadViolation,
      mtpLoss,
      seconds: (performance.now() - this.started) / 1000,
    });
    this.board?.scalars(step, {
      'loss/train': loss,
      ...perDepth('loss', mtpLoss),
      gradientNorm,
      learningRate,
      maxLoadViolation,
      tokensPerSecond,
    });
  }

  private result(validation: number): TrainResult {
    const { curve, trainer } = this;
    const recent = curve.slice(-10);
    const tokensPerSecond = median(this.speeds);
    // Ranks that measure one after the other would each see a machine of their own.
    const peak = this.ranks ? undefined : peakFlops(this.backend);
    const { total, active, mtp } = countParameters(this.run.model);
    return {
      out: this.run.out,
      steps: trainer.step,
      ended: trainer.step === this.config.steps ? 'complete' : this.signalled ? 'signal' : 'stop-after',
      loss: {
        first: curve[0] ?? Number.NaN,
        final: recent.reduce((a, b) => a + b, 0) / recent.length,
        validation,
      },
      tokensPerSecond,
      mfu: peak ? (tokensPerSecond * trainingFlops(this.run.model, this.config.sequenceLength)) / peak : null,
      peakBytes: process.resourceUsage().maxRSS * 1024,
      seconds: (performance.now() - this.started) / 1000,
      parameters: { total: total + mtp.total, active: active + mtp.active },
      memory: {
        predicted: this.predicted,
        measured: measureLedger(trainer),
        runtimeBytes: this.runtimeBytes,
      },
      curve,
    };
  }

  private get config(): TrainConfig {
    return this.run.config;
  }

  private get captures(): string {
    return path.join(this.run.out, CAPTURE_FOLDER);
  }

  private get checkpoints(): string {
    return path.join(this.run.out, 'checkpoints');
  }
}

/** One curve for each MTP depth. */
const perDepth = (group: string, values: readonly number[]): Record<string, number> =>
  Object.fromEntries(values.map((value, k) => [`${group}/mtp${k + 1}`, value]));

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
