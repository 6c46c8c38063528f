import { countingBackend } from '../backend/counting.js';
import { type OpTime, type TimedBackend, timedBackend } from '../backend/timed.js';
import type { OpSample, OpWork, StepWork } from '../plan/ops.js';
import type { ModelConfig } from '../spec/model.js';
import type { Backend } from '../tensor/backend.js';
import type { TrainConfig } from '../train/config.js';
import { emptyBatch, measureLedger } from '../train/ledger.js';
import { Trainer } from '../train/trainer.js';
import { randomBatch } from './batch.js';
import { type Clock, lowerQuartile, secondsOf, wallClock } from './measure.js';
import { roughWeights } from './rough-weights.js';

/** The operations of a training step: counted without computing, and measured. */

/** What a step does between operations: some for each of them, some for each token. */
const BETWEEN = 'between operations';

/** Operations of one step, counted on a backend that computes nothing. */
export function countStep(config: TrainConfig, model: ModelConfig, like: Backend): StepWork {
  const counting = timedBackend(countingBackend(like).backend);
  const trainer = new Trainer(config, model, counting.backend);
  const batches = Array.from({ length: config.microBatches }, () => emptyBatch(config, model));
  trainer.trainStep(batches);
  counting.reset();
  trainer.trainStep(batches);
  const ops = counting.times().map((time) => workOf(time, config.sequenceLength));
  return { ops: withBetween(ops, tokensOf(config)), touchedBytes: measureLedger(trainer).total };
}

const tokensOf = ({ batchSequences, sequenceLength }: TrainConfig): number => batchSequences * sequenceLength;

export interface MeasuredStep {
  seconds: number;
  /** What the trainer holds at the fullest moment of a step, all of which a step touches. */
  bytes: number;
  step: StepWork<OpSample>;
}

/** Lower quartiles of `steps` steps after two that warm up. */
export function measureStep(
  config: TrainConfig,
  model: ModelConfig,
  backend: Backend,
  steps: number,
  clock: Clock = wallClock,
): MeasuredStep {
  const timed = timedBackend(backend, clock);
  const trainer = new Trainer(config, model, timed.backend);
  roughWeights(trainer.model);
  const batch = randomBatch(model, config.batchSequences / config.microBatches, config.sequenceLength);
  const batches = Array.from({ length: config.microBatches }, () => batch);
  const rounds = measureRounds(() => trainer.trainStep(batches), timed, steps, clock);
  const { seconds, samples } = quiet(rounds, config.sequenceLength, tokensOf(config));
  const bytes = measureLedger(trainer).total;
  return { seconds, bytes, step: { ops: samples, touchedBytes: bytes } };
}

/** One step without looking into it, and one with. */
interface Round {
  seconds: number;
  times: OpTime[];
}

const WARM_UP_SECONDS = 0.2;
const LEAST_SECONDS = 0.4;
/** Long steps are run fewer times. */
const MOST_SECONDS = 3;
const LEAST_ROUNDS = 3;

/** Looking costs some microseconds an operation, which the whole must not count. */
export function measureRounds(run: () => void, timed: TimedBackend, rounds: number, clock: Clock): Round[] {
  const round = (): Round => {
    timed.measuring = false;
    const seconds = secondsOf(run, clock);
    timed.measuring = true;
    timed.reset();
    run();
    return { seconds, times: timed.times() };
  };
  const started = wallClock();
  // Short steps are run until their code is compiled, and often.
  do round();
  while (wallClock() - started < WARM_UP_SECONDS);
  const begun = wallClock();
  const kept: Round[] = [];
  const spent = () => wallClock() - begun;
  const wanted = () => (spent() < MOST_SECONDS ? rounds : LEAST_ROUNDS);
  while (kept.length < wanted() || spent() < LEAST_SECONDS) kept.push(round());
  return kept;
}

/** Lower quartiles over rounds. @param length that attention without a cache goes over @param tokens of the step */
export function quiet(
  rounds: readonly Round[],
  length: number,
  tokens: number,
): { seconds: number; samples: OpSample[] } {
  const perRound = rounds.map(({ times }) =>
    sumByKey(times.map((time) => ({ ...workOf(time, length), seconds: time.seconds }))),
  );
  const samples = perRound[0]!.map((sample) => {
    const seconds = perRound.map((sums) => sums.find(({ key }) => key === sample.key)!.seconds);
    return { ...sample, seconds: Math.max(1e-9, lowerQuartile(seconds)) };
  });
  const seconds = lowerQuartile(rounds.map((round) => round.seconds));
  const inside = samples.reduce((sum, one) => sum + one.seconds, 0);
  const between = withBetween(samples, tokens).at(-1)!;
  // A small difference of two large sums, which noise may turn round.
  return { seconds, samples: [...samples, { ...between, seconds: seconds - inside, scale: seconds }] };
}

export function withBetween(work: readonly OpWork[], tokens: number): OpWork[] {
  const sums = sumByKey(work.map((one) => ({ ...one, seconds: 0 })));
  const calls = work.reduce((sum, one) => sum + one.calls, 0);
  return [...sums, { key: BETWEEN, calls, flops: tokens, bytes: 0, pairs: 0 }];
}

function sumByKey(samples: readonly OpSample[]): OpSample[] {
  const sums = new Map<string, OpSample>();
  for (const sample of samples) {
    const sum = sums.get(sample.key) ?? {
      key: sample.key,
      calls: 0,
      flops: 0,
      bytes: 0,
      pairs: 0,
      seconds: 0,
    };
    for (const field of ['calls', 'flops', 'bytes', 'pairs', 'seconds'] as const) sum[field] += sample[field];
    sums.set(sample.key, sum);
  }
  return [...sums.values()];
}

/** What an operation's cost depends on besides size: kind and format of a product, and whether experts share it. */
export function workOf({ op, detail, calls, productFlops, bytes, pairs }: OpTime, length: number): OpWork {
  const kind = detail.replaceAll(/ ?\[[^\]]*\]| x| of \d+ groups| in \d+ groups/g, '').trim();
  const grouped = / groups/.test(detail) ? ' grouped' : '';
  // Attention is quadratic: bytes times the length stand for its products.
  const quadratic = op === 'attention' || op === 'attentionBackward' ? bytes * length : productFlops;
  // A grouped product is one for every expert that gets rows, whose weights alone are read; the router is taken to be even.
  const groups = Number(/(\d+) groups/.exec(detail)?.[1] ?? 1);
  const rows = Number(/\[(\d+), \d+\] x/.exec(detail)?.[1] ?? Number.POSITIVE_INFINITY);
  const share = (op === 'gemm' || op === 'project') && groups > 1 ? 1 - (1 - 1 / groups) ** rows : 1;
  const key = `${op} ${kind}${grouped}`.trim();
  return { key, calls: calls * groups * share, flops: quadratic, bytes: bytes * share, pairs };
}
