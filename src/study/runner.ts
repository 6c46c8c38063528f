/** Trains all runs of a study as child processes; what is done is kept, so that a crash costs the runs in progress. */
import fs from 'node:fs';
import path from 'node:path';
import { withFileErrors } from '../files.js';
import type { Progress } from '../report/progress.js';
import type { Ui } from '../report/ui.js';
import { runStatus } from '../train/run-status.js';
import { claimRun, refuseIfTrained, releaseRun } from './claim.js';
import { describeMachine } from './machine.js';
import { measureRun } from './measure.js';
import type { PlannedVariant, StudyPlan } from './plan.js';
import type { SharedData } from './prepare.js';
import { type ResultsFolder, type RunRecord, writeText } from './results.js';
import type { StudyRanks } from './schema.js';
import { type Ending, TrainProcess } from './train-process.js';

export interface RunnerOptions {
  /** Program and first arguments of the command line that has `train`. */
  fathom: readonly string[];
  /** Runs at a time. */
  jobs: number;
  /** Threads of all runs together. */
  threads: number;
  backend?: string;
}

/** What became of a study's runs. */
export interface RunnerOutcome {
  /** Trained now. */
  done: number;
  /** Those that failed now, each with its reason. */
  failed: string[];
  /** Whether it was told to stop before all were done. */
  stopped: boolean;
}

/** A run to be done. */
interface Task {
  variant: PlannedVariant;
  seed: number;
}

/** Trains what `results` lacks or holds as failed. @throws UserError where files cannot be written */
export async function runStudy(
  plan: StudyPlan,
  results: ResultsFolder,
  shared: SharedData,
  options: RunnerOptions,
  ui: Ui,
): Promise<RunnerOutcome> {
  const runner = new Runner(plan, results, shared, options, ui.progress(plan.study.name));
  return runner.run();
}

const nameOf = ({ variant, seed }: Task): string => `${variant.name}, seed ${seed}`;

class Runner {
  private readonly tasks: Task[];
  private readonly total: number;
  /** Runs that were done before. */
  private readonly before: number;
  private readonly active = new Map<Task, TrainProcess>();
  private readonly outcome: RunnerOutcome = { done: 0, failed: [], stopped: false };
  private readonly onSignal = () => {
    if (!this.outcome.stopped) this.progress.note('stopping; finished runs are kept, the others are saved');
    this.stop();
  };

  constructor(
    private readonly plan: StudyPlan,
    private readonly results: ResultsFolder,
    private readonly shared: SharedData,
    private readonly options: RunnerOptions,
    private readonly progress: Progress,
  ) {
    const { seeds } = plan.study;
    // Seed by seed, so that what is there early can be compared.
    const all = seeds.flatMap((seed) => plan.variants.map((variant) => ({ variant, seed })));
    this.tasks = all.filter((task) => !this.isDone(task));
    this.total = all.length;
    this.before = all.length - this.tasks.length;
  }

  async run(): Promise<RunnerOutcome> {
    process.on('SIGINT', this.onSignal).on('SIGTERM', this.onSignal);
    try {
      this.show('');
      const lanes = Array.from({ length: this.options.jobs }, () => this.work());
      await Promise.all(lanes).catch(async (error) => {
        // What failed is not a run but the keeping of it, as when the disk is full: nothing goes on.
        this.stop();
        await Promise.allSettled(lanes);
        throw error;
      });
    } finally {
      process.off('SIGINT', this.onSignal).off('SIGTERM', this.onSignal);
      this.progress.end();
    }
    return this.outcome;
  }

  private stop(): void {
    this.outcome.stopped = true;
    for (const process of this.active.values()) process.stop();
  }

  private isDone({ variant, seed }: Task): boolean {
    const record = this.results.read({ variant: variant.name, seed });
    return record !== undefined && record.error === undefined;
  }

  /** One lane: runs from the queue until it is empty. */
  private async work(): Promise<void> {
    while (!this.outcome.stopped) {
      const task = this.tasks.shift();
      if (!task) return;
      const ending = await this.train(task);
      if (ending.kind !== 'stopped') this.keep(task, ending);
    }
  }

  private async train(task: Task): Promise<Ending> {
    const folder = this.folderOf(task);
    refuseIfTrained(folder);
    const status = runStatus(folder);
    if (status === 'complete') return { kind: 'complete', peakBytes: undefined };
    const process = new TrainProcess(this.command(task, status === 'unfinished'), (line) =>
      this.show(`${nameOf(task)}: ${line}`),
    );
    this.active.set(task, process);
    try {
      if (process.pid !== undefined) claimRun(folder, process.pid);
      return await process.ending;
    } finally {
      this.active.delete(task);
      releaseRun(folder);
    }
  }

  private command(task: Task, resume: boolean): string[] {
    const { fathom, backend } = this.options;
    const { source } = this.plan;
    const text = 'corpus' in source ? ['--corpus', source.corpus] : ['--data', ...source.paths];
    const { variant, seed } = task;
    const fresh = [
      ...['--config', this.writeConfig(variant), '--seed', String(seed), ...text],
      ...['--tokenizer', this.shared.tokenizer(variant.model.vocab_size)],
    ];
    const { launcher, flags } = spread(variant.ranks);
    const threads = Math.max(1, Math.floor(this.threads / (variant.ranks?.count ?? 1)));
    return [
      ...[...launcher, ...fathom],
      ...['train', '--json', '--out', this.folderOf(task), '--data-cache', this.shared.cache],
      ...['--threads', String(threads), ...(backend ? ['--backend', backend] : []), ...flags],
      ...(resume ? ['--resume'] : fresh),
    ];
  }

  private writeConfig({ name, json }: PlannedVariant): string {
    const file = path.join(this.results.work, 'configs', `${name}.json`);
    writeText(file, `${JSON.stringify(json, null, 2)}\n`);
    return file;
  }

  /** Threads of one run. */
  private get threads(): number {
    return Math.max(1, Math.floor(this.options.threads / this.options.jobs));
  }

  private keep(task: Task, ending: Exclude<Ending, { kind: 'stopped' }>): void {
    if (ending.kind === 'failed') {
      this.results.write({ ...this.header(task), error: ending.message, metrics: {}, curves: NO_CURVES });
      this.outcome.failed.push(`${nameOf(task)}: ${ending.message}`);
      this.progress.note(`${nameOf(task)} failed: ${ending.message}`);
      return;
    }
    const folder = this.folderOf(task);
    const record = { ...this.header(task), ...measureRun(folder, task.variant, ending.peakBytes) };
    this.results.write(record);
    withFileErrors('remove', folder, () => fs.rmSync(folder, { recursive: true, force: true }));
    this.outcome.done++;
    this.progress.note(
      `${nameOf(task)}: validation loss ${record.metrics.validationLoss?.toFixed(4) ?? 'unknown'}`,
    );
    this.show('');
  }

  private header({ variant, seed }: Task): Omit<RunRecord, 'metrics' | 'curves'> {
    return {
      version: 1,
      digest: this.results.digest,
      variant: variant.name,
      seed,
      machine: describeMachine(this.options.backend),
      threads: this.threads,
      finished: new Date().toISOString(),
    };
  }

  private folderOf({ variant, seed }: Task): string {
    return path.join(this.results.work, 'runs', `${variant.name}.${seed}`);
  }

  private show(detail: string): void {
    const done = this.before + this.outcome.done;
    this.progress.update({ done, total: this.total, details: detail ? [detail] : [] });
  }
}

/** What starts a run on ranks, and tells them how. */
function spread(ranks: StudyRanks | undefined): { launcher: string[]; flags: string[] } {
  if (!ranks) return { launcher: [], flags: [] };
  const { count, perNode, wire } = ranks;
  return {
    launcher: ['mpirun', '-n', String(count)],
    flags: [...(perNode ? ['--ranks-per-node', String(perNode)] : []), ...(wire ? ['--wire', wire] : [])],
  };
}

const NO_CURVES: RunRecord['curves'] = { loss: [], validationLoss: [] };
