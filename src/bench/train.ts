import type { InstructionSet } from '../backend/native/addon.js';
import { nativeBackend } from '../backend/native/index.js';
import { type OpTime, timedBackend } from '../backend/timed.js';
import { initialise } from '../model/initialise.js';
import { trainingFlops } from '../plan/flops.js';
import type { Ui } from '../report/ui.js';
import { parseModelConfig } from '../spec/model.js';
import { MODEL_PRESETS } from '../spec/presets.js';
import type { Backend } from '../tensor/backend.js';
import { parseTrainConfig, TRAIN_PRESETS, type TrainConfig } from '../train/config.js';
import { type Ledger, measureLedger, predictLedger } from '../train/ledger.js';
import { Trainer } from '../train/trainer.js';
import { randomBatch } from './batch.js';
import { kernelsOf, requireAddon } from './kernels.js';
import { type Ceilings, describeMachine, type Machine, matrixPeak, measureCeilings } from './machine.js';
import { median, secondsOf, summarise, type Timing } from './measure.js';
import { type PeerResult, runTorchPeer } from './peer.js';

/** Models that are measured: their batch, what they must reach, and the peer's time budget in seconds. */
export const TRAIN_CASES = {
  mini: { sequences: 16, length: 256, peerTarget: 2.5, mfuTarget: undefined, peerBudget: 120 },
  small: { sequences: 8, length: 512, peerTarget: 1.5, mfuTarget: 0.3, peerBudget: 300 },
} as const;
export type TrainCase = keyof typeof TRAIN_CASES;

/** Upper bound of FP8 step time over BF16 step time, and of resident memory's distance from the ledger. */
const FP8_TARGET = 1.15;
const MEMORY_TARGET = 0.15;

export interface TrainOptions {
  model: TrainCase;
  /** All CPUs by default. */
  threads?: number;
  isa?: InstructionSet;
  /** Timed steps of each precision; twice as many with a peer. */
  steps: number;
  peer?: 'torch';
  /** Whether to measure every op. */
  profile?: boolean;
}

/** Training in one precision. */
export interface PrecisionResult {
  seconds: Timing;
  tokensPerSecond: number;
  /** Model FLOPs over the peak of the BF16 dot product, and of the fastest BF16 unit. */
  mfuOfDot: number;
  mfu: number;
  loss: number;
  ops: OpTime[] | null;
}

/** A figure against what the project asks for. */
export interface Check {
  name: string;
  value: number;
  target: number;
  met: boolean;
}

export interface TrainReport {
  machine: Machine;
  ceilings: Ceilings;
  model: TrainCase;
  sequences: number;
  length: number;
  threads: number;
  flopsPerToken: number;
  bf16: PrecisionResult;
  fp8: PrecisionResult;
  /** Median over pairs of steps. */
  fp8OverBf16: number;
  memory: { predicted: Ledger; measured: Ledger; residentBytes: number };
  peer: PeerResult | null;
  checks: Check[];
}

/**
 * Trains in FP8 and in BF16 by turns on one random batch; with a peer, once before it and once after it.
 * @throws UserError without the addon, or if the peer fails
 */
export async function benchTrain(options: TrainOptions, ui: Ui): Promise<TrainReport> {
  const addon = requireAddon();
  const isa = options.isa ?? addon.info().isa;
  const threads = options.threads ?? addon.info().threads;
  const ceilings = measureCeilings(addon, kernelsOf(addon, isa), threads);
  const bench = new TrainBench(
    options.model,
    nativeBackend(addon, threads, isa),
    options.profile ?? false,
    ui,
  );
  bench.rounds(options.steps);
  const peer = options.peer ? await bench.peer(threads) : null;
  if (peer) bench.rounds(options.steps);
  const results = bench.results(ceilings);
  return {
    machine: describeMachine(addon, isa),
    ceilings,
    threads,
    ...results,
    peer,
    checks: checks(results, peer),
  };
}

/** One precision under measurement. */
class Contestant {
  readonly config: TrainConfig;
  readonly trainer: Trainer;
  readonly seconds: number[] = [];
  loss = Number.NaN;
  private readonly timed;

  constructor(precision: 'bf16' | 'fp8', model: TrainCase, backend: Backend, profile: boolean) {
    const { sequences, length } = TRAIN_CASES[model];
    const sizes = { batchSequences: sequences, sequenceLength: length, precision };
    this.config = parseTrainConfig({ ...TRAIN_PRESETS[model], ...sizes }, `preset ${model}`);
    this.timed = profile ? timedBackend(backend) : undefined;
    this.trainer = new Trainer(this.config, modelOf(model), this.timed?.backend ?? backend);
    initialise(this.trainer.model, this.config.seed);
  }

  /** A step whose time counts. */
  step(batch: ReturnType<typeof randomBatch>): void {
    this.seconds.push(secondsOf(() => this.untimed(batch)));
  }

  /** Steps that allocate memory and fill caches. */
  warmUp(batch: ReturnType<typeof randomBatch>): void {
    for (let i = 0; i < 2; i++) this.untimed(batch);
    this.timed?.reset();
  }

  /** What each op took per step. */
  ops(): OpTime[] | null {
    const steps = this.seconds.length;
    const perStep = (t: OpTime): OpTime => ({
      ...t,
      calls: t.calls / steps,
      seconds: t.seconds / steps,
      flops: t.flops / steps,
      bytes: t.bytes / steps,
    });
    return this.timed ? this.timed.times().map(perStep) : null;
  }

  private untimed(batch: ReturnType<typeof randomBatch>): void {
    this.loss = this.trainer.trainStep([batch]).loss;
  }
}

const modelOf = (name: TrainCase) => parseModelConfig(MODEL_PRESETS[name], `preset ${name}`);

/** Both precisions of one model, and what they are measured on. */
class TrainBench {
  private readonly batch;
  private readonly memory: TrainReport['memory'];
  private readonly fp8: Contestant;
  private readonly bf16: Contestant;

  constructor(
    private readonly name: TrainCase,
    backend: Backend,
    profile: boolean,
    private readonly ui: Ui,
  ) {
    const { sequences, length } = TRAIN_CASES[name];
    this.batch = randomBatch(modelOf(name), sequences, length);
    const runtimeBytes = process.memoryUsage.rss();
    this.fp8 = new Contestant('fp8', name, backend, profile);
    this.fp8.warmUp(this.batch);
    this.memory = {
      predicted: predictLedger(this.fp8.config, modelOf(name), backend),
      measured: measureLedger(this.fp8.trainer),
      residentBytes: process.resourceUsage().maxRSS * 1024 - runtimeBytes,
    };
    this.bf16 = new Contestant('bf16', name, backend, profile);
    this.bf16.warmUp(this.batch);
  }

  /** `steps` timed steps of each, by turns; who goes first changes too. */
  rounds(steps: number): void {
    const progress = this.ui.progress(`bench train ${this.name}`);
    for (let i = 0; i < steps; i++) {
      const order = i % 2 === 0 ? [this.fp8, this.bf16] : [this.bf16, this.fp8];
      for (const contestant of order) contestant.step(this.batch);
      progress.update({ done: i + 1, total: steps });
    }
    progress.end();
  }

  /** The same model and batch sizes in PyTorch. */
  peer(threads: number): Promise<PeerResult> {
    const { sequences, length, peerBudget: budget } = TRAIN_CASES[this.name];
    return runTorchPeer({ config: MODEL_PRESETS[this.name], sequences, length, threads, budget }, this.ui);
  }

  results(ceilings: Ceilings) {
    const { sequences, length } = TRAIN_CASES[this.name];
    const flopsPerToken = trainingFlops(modelOf(this.name), length);
    const of = (contestant: Contestant) =>
      precisionResult(contestant, sequences * length, flopsPerToken, ceilings);
    const [bf16, fp8] = [of(this.bf16), of(this.fp8)];
    const fp8OverBf16 = median(this.fp8.seconds.map((s, i) => s / this.bf16.seconds[i]!));
    return {
      model: this.name,
      sequences,
      length,
      flopsPerToken,
      bf16,
      fp8,
      fp8OverBf16,
      memory: this.memory,
    };
  }
}

function precisionResult(
  contestant: Contestant,
  tokens: number,
  flopsPerToken: number,
  ceilings: Ceilings,
): PrecisionResult {
  const seconds = summarise(contestant.seconds);
  const tokensPerSecond = tokens / seconds.median;
  const flops = tokensPerSecond * flopsPerToken;
  return {
    seconds,
    tokensPerSecond,
    mfuOfDot: flops / ceilings.dotbf16,
    mfu: flops / matrixPeak(ceilings),
    loss: contestant.loss,
    ops: contestant.ops(),
  };
}

/** The results against the project's targets. Speed is compared in BF16, the format that both sides have. */
function checks(results: ReturnType<TrainBench['results']>, peer: PeerResult | null): Check[] {
  const { peerTarget, mfuTarget } = TRAIN_CASES[results.model];
  const { predicted, residentBytes } = results.memory;
  const atLeast = (name: string, value: number, target: number) => ({
    name,
    value,
    target,
    met: value >= target,
  });
  const atMost = (name: string, value: number, target: number) => ({
    name,
    value,
    target,
    met: value <= target,
  });
  const distance = Math.abs(residentBytes / predicted.total - 1);
  return [
    atMost('FP8 step over BF16 step', results.fp8OverBf16, FP8_TARGET),
    atMost('resident memory off the ledger by', distance, MEMORY_TARGET),
    ...(mfuTarget ? [atLeast('MFU of BF16 peak', results.bf16.mfu, mfuTarget)] : []),
    ...(peer
      ? [
          atLeast('BF16 over PyTorch', results.bf16.tokensPerSecond / peer.tokensPerSecond, peerTarget),
          atLeast('FP8 over PyTorch', results.fp8.tokensPerSecond / peer.tokensPerSecond, peerTarget),
        ]
      : []),
  ];
}
