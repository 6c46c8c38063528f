import { selectBackend } from '../../backend/select.js';
import type { LaunchedTransport } from '../../expert/planes/open.js';
import { Team } from '../../expert/team.js';
import { parseWire } from '../../expert/wire/format.js';
import { initialise } from '../../model/initialise.js';
import { isMoeLayer, type ModelConfig, parseModelConfig } from '../../spec/model.js';
import { MODEL_PRESETS } from '../../spec/presets.js';
import { parseTrainConfig, TRAIN_PRESETS, tokensPerStep } from '../../train/config.js';
import { partOf } from '../../train/part.js';
import { Trainer } from '../../train/trainer.js';
import { randomBatch } from '../batch.js';
import { median } from '../measure.js';
import { ExchangeWork, slowest } from './exchange.js';

/** A training preset in BF16 on a random batch, without and with halves that overlap, step by step in turn. */
export interface TrainingCase {
  model: 'tiny' | 'mini';
  /** Of each rank. */
  threads: number;
  steps: number;
}

/** Medians over steps of the slowest rank, seconds. */
export interface StepTimes {
  seconds: number;
  /** Forward and backward. */
  passSeconds: number;
  /** Of these, blocked until messages or other ranks were there; coding rows. */
  waitSeconds: number;
  codecSeconds: number;
  /** Sums of gradients over ranks, AdamW, new values to all. */
  optimizerSeconds: number;
}

export interface TrainingResult {
  ranks: number;
  threads: number;
  tokensPerStep: number;
  plain: StepTimes;
  /** Absent where one rank has no messages. */
  overlapped: StepTimes | null;
  /** As many exchanges as a step has, alone. */
  exchangeSeconds: number | null;
}

const WARM_UP_STEPS = 3;
const WIRE = 'bf16:bf16';

/** @param id of the first channel of the exchange alone */
export function measureTraining(
  transport: LaunchedTransport,
  what: TrainingCase,
  id: number,
): TrainingResult {
  const { size } = transport.placement;
  const runs = (size > 1 ? [false, true] : [false]).map((overlap) => new Run(transport, what, overlap));
  for (let i = 0; i < WARM_UP_STEPS; i++) for (const run of runs) run.step();
  for (const run of runs) run.begin();
  for (let i = 0; i < what.steps; i++) for (const run of i % 2 ? runs.toReversed() : runs) run.step();
  const [plain, overlapped] = runs.map((run) => run.times());
  return {
    ranks: size,
    threads: what.threads,
    tokensPerStep: tokensPerStep(runs[0]!.config),
    plain: plain!,
    overlapped: overlapped ?? null,
    exchangeSeconds: size > 1 ? exchangeAlone(transport, runs[0]!, id) : null,
  };
}

class Run {
  readonly model: ModelConfig;
  readonly config;
  private readonly team: Team;
  private readonly trainer: Trainer;
  private readonly batch;
  /** Seconds by [part][step]: step, optimizer, waiting, coding. */
  private parts: number[][] = [];
  private optimizerSeconds = 0;

  constructor(
    private readonly transport: LaunchedTransport,
    { model, threads }: TrainingCase,
    overlap: boolean,
  ) {
    const { size } = transport.placement;
    this.model = parseModelConfig(MODEL_PRESETS[model], `preset ${model}`);
    this.config = parseTrainConfig({ ...TRAIN_PRESETS[model], precision: 'bf16' }, `preset ${model}`);
    const settings = { expertParallel: size, wire: parseWire(WIRE), overlap };
    this.team = new Team(transport, settings, this.model);
    const backend = selectBackend('native', threads);
    this.trainer = new Trainer(this.config, this.model, backend, size > 1 ? this.team : undefined);
    initialise(this.trainer.model, this.config.seed);
    const whole = randomBatch(this.model, this.config.batchSequences, this.config.sequenceLength);
    this.batch = size > 1 ? partOf(whole, { index: transport.rank, of: size }) : whole;
    this.timeOptimizer();
  }

  begin(): void {
    this.parts = [[], [], [], []];
  }

  /** Ranks begin together. */
  step(): void {
    this.optimizerSeconds = 0;
    this.team.takeTraffic();
    this.transport.world.barrier().wait();
    const started = performance.now();
    this.trainer.trainStep([this.batch]);
    const seconds = (performance.now() - started) / 1000;
    const traffic = this.team.takeTraffic();
    const sum = (name: 'waitSeconds' | 'codecSeconds') => traffic.reduce((all, t) => all + t[name], 0);
    const values = [seconds, this.optimizerSeconds, sum('waitSeconds'), sum('codecSeconds')];
    this.parts.forEach((list, i) => {
      list.push(values[i]!);
    });
  }

  times(): StepTimes {
    const ofRank = this.parts.map((list) => Float64Array.from(list));
    ofRank.push(ofRank[0]!.map((seconds, i) => seconds - ofRank[1]![i]!));
    const [seconds, optimizerSeconds, waitSeconds, codecSeconds, passSeconds] = ofRank.map((list) => {
      this.transport.world.allReduce(list, 'max').wait();
      return median([...list]);
    }) as [number, number, number, number, number];
    return { seconds, passSeconds, waitSeconds, codecSeconds, optimizerSeconds };
  }

  private timeOptimizer(): void {
    const { optimizer } = this.trainer;
    const timed =
      <A extends unknown[], T>(work: (...args: A) => T) =>
      (...args: A): T => {
        const started = performance.now();
        const result = work(...args);
        this.optimizerSeconds += (performance.now() - started) / 1000;
        return result;
      };
    optimizer.gradientNorm = timed(optimizer.gradientNorm.bind(optimizer));
    optimizer.step = timed(optimizer.step.bind(optimizer));
  }
}

/** Every layer with experts makes the way twice: forward, and in backward. */
function exchangeAlone(transport: LaunchedTransport, { model, config }: Run, id: number): number {
  const layers = Array.from(
    { length: model.num_hidden_layers + model.num_nextn_predict_layers },
    (_, layer) => layer,
  ).filter((layer) => isMoeLayer(model, layer)).length;
  const work = new ExchangeWork(
    transport,
    {
      tokens: tokensPerStep(config) / transport.placement.size,
      hidden: model.hidden_size,
      topK: model.num_experts_per_tok,
      experts: model.n_routed_experts,
      groups: model.n_group,
      groupsPerToken: model.topk_group,
      wire: WIRE,
      rounds: 7,
      bare: false,
    },
    id,
  );
  work.round();
  return 2 * layers * slowest(transport, work.what.rounds, () => work.round());
}
