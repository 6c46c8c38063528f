import { totalmem } from 'node:os';
import { nativeBackend } from '../backend/native/index.js';
import { fitOps, type OpSample, predictOps } from '../plan/ops.js';
import type { Ui } from '../report/ui.js';
import type { GemmRate, Known, Machine } from '../spec/machine.js';
import { type ModelConfig, parseModelConfig } from '../spec/model.js';
import { MODEL_PRESETS } from '../spec/presets.js';
import type { Backend } from '../tensor/backend.js';
import { parseTrainConfig, TRAIN_PRESETS, type TrainConfig } from '../train/config.js';
import { predictLedger } from '../train/ledger.js';
import { countInference, type InferenceCase, measureInference } from './inference-work.js';
import { kernelsOf, requireAddon } from './kernels.js';
import { type Ceilings, describeMachine, matrixPeak, measureCeilings } from './machine.js';
import { type Clock, cpuClock, median, wallClock } from './measure.js';
import { countStep, measureStep } from './step-work.js';

/** Measures the machine at hand into a Machine file, and holds what that predicts against what is measured. */

/** A training step by name of its model, number format, and sequences of so many tokens; `patch` changes the model. */
interface StepCase {
  model: 'tiny' | 'mini' | 'small';
  precision: 'bf16' | 'fp8';
  sequences: number;
  length: number;
  patch?: Partial<Record<keyof ModelConfig, number>>;
}

const both = (model: StepCase['model'], sequences: number, length: number): StepCase[] =>
  (['bf16', 'fp8'] as const).map((precision) => ({ model, precision, sequences, length }));

/** What costs are fitted to: three sizes of model, two of batch. */
const FITTED: readonly StepCase[] = [
  ...both('tiny', 4, 64),
  ...both('tiny', 8, 256),
  ...both('mini', 2, 128),
  ...both('mini', 8, 256),
  ...both('small', 1, 128),
  ...both('small', 2, 256),
];

/** What they are held against: other batches, and models between. */
const HELD_OUT: readonly StepCase[] = [
  { model: 'tiny', precision: 'bf16', sequences: 2, length: 128 },
  { model: 'tiny', precision: 'fp8', sequences: 2, length: 256 },
  { model: 'tiny', precision: 'fp8', sequences: 16, length: 128 },
  { model: 'tiny', precision: 'bf16', sequences: 4, length: 128, patch: { num_hidden_layers: 6 } },
  { model: 'mini', precision: 'bf16', sequences: 4, length: 128 },
  { model: 'mini', precision: 'bf16', sequences: 1, length: 512 },
  { model: 'mini', precision: 'fp8', sequences: 4, length: 256 },
  { model: 'mini', precision: 'fp8', sequences: 16, length: 64 },
  {
    model: 'mini',
    precision: 'fp8',
    sequences: 2,
    length: 256,
    patch: { num_hidden_layers: 4, n_routed_experts: 16 },
  },
  {
    model: 'mini',
    precision: 'bf16',
    sequences: 4,
    length: 128,
    patch: { hidden_size: 384, intermediate_size: 1024 },
  },
  { model: 'small', precision: 'fp8', sequences: 2, length: 128 },
  { model: 'small', precision: 'bf16', sequences: 1, length: 512 },
  { model: 'small', precision: 'fp8', sequences: 4, length: 128, patch: { num_hidden_layers: 5 } },
];

/** Prefill and decode of a model; decode takes one token of each sequence. */
interface ServingCase extends InferenceCase {
  model: 'tiny' | 'mini' | 'small';
}

const prefill = (model: ServingCase['model'], sequences: number, tokens: number): ServingCase => ({
  model,
  sequences,
  tokens,
  context: 0,
});
const decode = (model: ServingCase['model'], sequences: number, context: number): ServingCase => ({
  model,
  sequences,
  tokens: 1,
  context,
});

const FITTED_SERVING: readonly ServingCase[] = (['tiny', 'mini', 'small'] as const).flatMap((model) => [
  prefill(model, 1, 64),
  prefill(model, 1, 512),
  prefill(model, 4, 256),
  decode(model, 1, 64),
  decode(model, 1, 900),
  decode(model, 4, 400),
  decode(model, 16, 64),
  decode(model, 16, 900),
]);

const HELD_OUT_SERVING: readonly ServingCase[] = [
  prefill('mini', 1, 200),
  prefill('mini', 3, 128),
  prefill('small', 2, 128),
  decode('tiny', 8, 200),
  decode('mini', 1, 300),
  decode('mini', 2, 700),
  decode('mini', 8, 200),
  decode('mini', 12, 500),
  decode('small', 2, 200),
  decode('small', 8, 600),
];

export interface CalibrateOptions {
  /** All CPUs by default. */
  threads?: number;
  /** Timed steps of each case. */
  steps: number;
}

interface Measuring {
  steps: number;
  clock: Clock;
}

/** One thread is timed by what it takes of a core, whatever else runs there; several only by the clock on the wall. */
const clockOf = (threads: number): Clock => (threads === 1 ? cpuClock : wallClock);

/**
 * Measures ceilings and the engine's operations.
 * @throws UserError without the addon
 */
export function calibrate(options: CalibrateOptions, ui: Ui): Machine {
  const addon = requireAddon();
  const { isa } = addon.info();
  const threads = options.threads ?? addon.info().threads;
  const ceilings = measureCeilings(addon, kernelsOf(addon, isa), threads);
  const backend = nativeBackend(addon, threads, isa);
  const clock = clockOf(threads);
  const samples = [
    ...measureCases(FITTED, backend, { steps: options.steps, clock }, ui),
    ...measureServing(FITTED_SERVING, backend, { steps: 2 * options.steps, clock }, ui),
  ];
  const { cpu, date } = describeMachine(addon, isa);
  const source = `fathom calibrate, ${cpu}, ${threads} threads, ${date.slice(0, 10)}`;
  return {
    ...machineOf(cpu, ceilings, samples, source),
    engine: { threads, source, ops: fitOps(samples) },
  };
}

function measureCases(
  cases: readonly StepCase[],
  backend: Backend,
  { steps, clock }: Measuring,
  ui: Ui,
): OpSample[] {
  const progress = ui.progress('calibrate');
  try {
    return cases.flatMap((one, i) => {
      progress.update({ done: i, total: cases.length, details: [nameOf(one)] });
      const { config, model } = prepare(one);
      return measureStep(config, model, backend, steps, clock).samples;
    });
  } finally {
    progress.end();
  }
}

function measureServing(
  cases: readonly ServingCase[],
  backend: Backend,
  { steps, clock }: Measuring,
  ui: Ui,
): OpSample[] {
  const progress = ui.progress('calibrate inference');
  try {
    return cases.flatMap((one, i) => {
      progress.update({ done: i, total: cases.length, details: [servingName(one)] });
      return measureInference(one, presetOf(one.model), backend, steps, clock).samples;
    });
  } finally {
    progress.end();
  }
}

const presetOf = (name: keyof typeof MODEL_PRESETS): ModelConfig =>
  parseModelConfig(MODEL_PRESETS[name], `preset ${name}`);

const servingName = ({ model, sequences, tokens, context }: ServingCase): string =>
  context === 0 ? `${model} prefill ${sequences}×${tokens}` : `${model} decode ${sequences} after ${context}`;

/** One step held against its prediction. */
export interface Prediction {
  name: string;
  predictedSeconds: number;
  measuredSeconds: number;
  /** Of the trainer's memory at the fullest moment of a step, bytes; null for inference. */
  predictedBytes: number | null;
  measuredBytes: number | null;
  /** predicted / measured − 1. */
  deviation: number;
}

export interface Validation {
  machine: string;
  source: string;
  predictions: Prediction[];
  medianDeviation: number;
  worstDeviation: number;
  /** Median at most 10 %, worst at most 25 %. */
  met: boolean;
}

const [MEDIAN_TARGET, WORST_TARGET] = [0.1, 0.25];

/** Predicts and measures the cases that calibration has not seen. @throws UserError where the machine was not calibrated */
export function validate(
  machine: Machine,
  engine: NonNullable<Machine['engine']>,
  steps: number,
  ui: Ui,
): Validation {
  const addon = requireAddon();
  const backend = nativeBackend(addon, engine.threads, addon.info().isa);
  const measuring = { steps, clock: clockOf(engine.threads) };
  const progress = ui.progress('validate');
  const total = HELD_OUT.length + HELD_OUT_SERVING.length;
  const training = HELD_OUT.map((one, done) => {
    progress.update({ done, total, details: [nameOf(one)] });
    return validateStep(one, backend, engine, measuring);
  });
  const serving = HELD_OUT_SERVING.map((one, i) => {
    progress.update({ done: HELD_OUT.length + i, total, details: [servingName(one)] });
    return validateServing(one, backend, engine, measuring);
  });
  progress.end();
  const predictions = [...training, ...serving];
  const off = predictions.map(({ deviation }) => Math.abs(deviation));
  const [medianDeviation, worstDeviation] = [median(off), Math.max(...off)];
  const met = medianDeviation <= MEDIAN_TARGET && worstDeviation <= WORST_TARGET;
  return { machine: machine.name, source: engine.source, predictions, medianDeviation, worstDeviation, met };
}

type Engine = NonNullable<Machine['engine']>;

function validateStep(
  one: StepCase,
  backend: Backend,
  engine: Engine,
  { steps, clock }: Measuring,
): Prediction {
  const { config, model } = prepare(one);
  const predictedSeconds = predictStep(config, model, backend, engine.ops);
  const measured = measureStep(config, model, backend, steps, clock);
  return {
    name: nameOf(one),
    predictedSeconds,
    measuredSeconds: measured.seconds,
    predictedBytes: predictLedger(config, model, backend).total,
    measuredBytes: measured.bytes,
    deviation: predictedSeconds / measured.seconds - 1,
  };
}

function validateServing(
  one: ServingCase,
  backend: Backend,
  engine: Engine,
  { steps, clock }: Measuring,
): Prediction {
  const model = presetOf(one.model);
  const predictedSeconds = predictOps(countInference(one, model, backend), engine.ops).seconds;
  const { seconds } = measureInference(one, model, backend, 2 * steps, clock);
  return {
    name: servingName(one),
    predictedSeconds,
    measuredSeconds: seconds,
    predictedBytes: null,
    measuredBytes: null,
    deviation: predictedSeconds / seconds - 1,
  };
}

/** Seconds of a training step on the calibrated machine, without computing it. */
export const predictStep = (
  config: TrainConfig,
  model: ModelConfig,
  like: Backend,
  ops: NonNullable<Machine['engine']>['ops'],
): number => predictOps(countStep(config, model, like), ops).seconds;

/** What a mean step of decoding was like. */
export interface MeanDecoding {
  sequences: number;
  /** Rows of the step: sequences and their drafts. */
  rows: number;
  /** Tokens in the cache of a sequence. */
  context: number;
}

/**
 * Seconds of a step of decoding with weights and cache in BF16, between a step without drafts and one with a draft for every
 * sequence; undefined where the calibration has no costs for an operation that counts.
 */
export function predictDecoding(
  mean: MeanDecoding,
  model: ModelConfig,
  like: Backend,
  ops: Engine['ops'],
): number | undefined {
  const sequences = Math.max(1, Math.round(mean.sequences));
  const context = Math.round(mean.context);
  const drafted = Math.min(1, Math.max(0, mean.rows / mean.sequences - 1));
  const seconds = [1, 2].map((tokens) => {
    const { seconds: sum, parts } = predictOps(
      countInference({ sequences, tokens, context }, model, like),
      ops,
    );
    return parts.length > 0 ? sum : Number.NaN;
  }) as [number, number];
  const predicted = (1 - drafted) * seconds[0] + drafted * seconds[1];
  return Number.isFinite(predicted) ? predicted : undefined;
}

function prepare({ model: name, precision, sequences, length, patch }: StepCase) {
  const sizes = { batchSequences: sequences, sequenceLength: length, precision, microBatches: 1 };
  const config = parseTrainConfig({ ...TRAIN_PRESETS[name], ...sizes }, `preset ${name}`);
  return { config, model: parseModelConfig({ ...MODEL_PRESETS[name], ...patch }, `preset ${name}`) };
}

function nameOf({ model, precision, sequences, length, patch }: StepCase): string {
  const changes = Object.entries(patch ?? {}).map(([field, value]) => `${field} ${value}`);
  return [`${model} ${precision} ${sequences}×${length}`, ...changes].join(', ');
}

/** The constants that plans of whole clusters need: one device, no network, rates of large operations. */
function machineOf(cpu: string, ceilings: Ceilings, samples: readonly OpSample[], source: string): Machine {
  const known = (value: number): Known => ({ value, source });
  const rateOf = (key: RegExp): GemmRate => {
    const rates = samples
      .filter((one) => key.test(one.key) && one.flops > 0)
      .map((one) => one.flops / one.seconds);
    return { flopsPerSecond: known(Math.max(...rates)), halfDepth: { value: 1, source: 'assumed' } };
  };
  const kernels = (format: string) => ({
    forward: rateOf(new RegExp(`^gemm \\w+ ${format}$`)),
    weightGradient: rateOf(new RegExp(`^gemmWgrad ${format}$`)),
  });
  const attention = {
    points: [{ keys: 256, flopsPerSecond: matrixPeak(ceilings) / 4 }],
    source: 'assumed: a quarter of the peak',
    latentShare: { value: 1, source: 'assumed' },
  };
  return {
    name: cpu,
    device: {
      memoryBytes: known(totalmem()),
      memoryBytesPerSecond: known(ceilings.read),
      peakFlopsPerSecond: {
        fp32: known(ceilings.fma32),
        bf16: known(matrixPeak(ceilings)),
        fp8: known(matrixPeak(ceilings)),
      },
      units: known(ceilings.threads),
      dollarsPerHour: { value: 0.1, source: 'assumed' },
    },
    node: { devices: 1, scaleUp: null, scaleOut: null },
    kernels: {
      gemm: {
        bf16: kernels('bf16'),
        fp8: kernels('e4m3'),
        tile: { value: 16, source: 'assumed: rows of an AMX tile' },
      },
      attention: { forward: attention, backward: attention },
      decodeAttentionFlopsPerSecond: {
        value: matrixPeak(ceilings) / 4,
        source: 'assumed: a quarter of the peak',
      },
      memoryShare: { value: 1, source: 'measured as reached' },
      elementwiseShare: { value: 1, source: 'measured as reached' },
      launchSeconds: { value: 5e-6, source: 'assumed' },
      communicationUnits: { value: 0, source: 'one device' },
      exchange: null,
      smallExchange: null,
    },
  };
}
