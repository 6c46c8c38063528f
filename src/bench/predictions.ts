import { nativeBackend } from '../backend/native/index.js';
import { listParameters } from '../model/parameters.js';
import { type EngineCosts, predictOps } from '../plan/ops.js';
import type { Ui } from '../report/ui.js';
import type { Machine } from '../spec/machine.js';
import type { ModelConfig } from '../spec/model.js';
import type { Backend } from '../tensor/backend.js';
import { elementCount } from '../tensor/tensor.js';
import type { TrainConfig } from '../train/config.js';
import { predictLedger } from '../train/ledger.js';
import type { Measuring } from './calibrate.js';
import {
  HELD_OUT,
  HELD_OUT_SERVING,
  nameOf,
  prepare,
  type ServingCase,
  type StepCase,
  servingName,
} from './calibration-cases.js';
import { inTurn } from './in-turn.js';
import { countInference, measureInference, StoredPresets } from './inference-work.js';
import { requireAddon } from './kernels.js';
import { clockOf, median } from './measure.js';
import { countStep, measureStep } from './step-work.js';

/** What a calibration predicts, held against what is measured. */

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

/** Predicts and measures the cases that calibration has not seen. @throws UserError without the addon */
export async function validate(
  machine: Machine,
  engine: NonNullable<Machine['engine']>,
  steps: number,
  ui: Ui,
): Promise<Validation> {
  const addon = requireAddon();
  const backend = nativeBackend(addon, engine.threads, addon.info().isa);
  const measuring = { steps, clock: clockOf(engine.threads) };
  const presets = new StoredPresets(backend);
  const training = await inTurn('check', ui, HELD_OUT, nameOf, (one) =>
    validateStep(one, backend, engine, measuring),
  );
  const serving = await inTurn('check inference', ui, HELD_OUT_SERVING, servingName, (one) =>
    validateServing(one, presets, backend, engine, measuring),
  );
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
  const predictedSeconds = predictStep(config, model, backend, engine);
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
  presets: StoredPresets,
  backend: Backend,
  engine: Engine,
  { steps, clock }: Measuring,
): Prediction {
  const model = presets.open(one.model);
  const predictedSeconds = predictOps(countInference(one, model.config, backend), engine).seconds;
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
  engine: EngineCosts,
): number => predictOps(countStep(config, model, like), engine).seconds;

/** How a step is spread: ranks, and those that the experts of a layer lie on. */
export interface RankSpread {
  size: number;
  expertParallel: number;
}

/**
 * Seconds of a training step over ranks: what one rank computes of it, the rows that go to experts of others and back, and the sums
 * of gradients; nothing overlaps. Undefined where the machine's links or such a share of the experts are not known.
 * @param config of the whole step
 */
export function predictRankedStep(
  config: TrainConfig,
  model: ModelConfig,
  { size, expertParallel }: RankSpread,
  like: Backend,
  { engine, node, kernels }: Machine,
): number | undefined {
  const link = size > node.devices ? node.scaleOut : node.scaleUp;
  const experts = model.n_routed_experts / expertParallel;
  if (!engine || !link || !Number.isInteger(experts) || experts < model.num_experts_per_tok) return undefined;
  const own = { ...config, batchSequences: config.batchSequences / size };
  const alone = { ...model, n_routed_experts: experts, n_group: 1, topk_group: 1 };
  const seconds = predictStep(own, alone, like, engine);
  const { rowBytes, sumBytes } = rankTraffic(own, model, { size, expertParallel });
  const rate = link.effectiveBytesPerSecond.value;
  const exchange = kernels.exchange?.points.find(({ devices }) => devices >= expertParallel);
  const rows = rowBytes / (exchange?.dispatchBytesPerSecond ?? rate);
  return seconds + rows + sumBytes / rate;
}

/** Rows there and back, forwards and backwards, in BF16; gradients reduced and parameters gathered in FP32. */
function rankTraffic(config: TrainConfig, model: ModelConfig, { size, expertParallel }: RankSpread) {
  const tokens = config.batchSequences * config.sequenceLength;
  const layers = model.num_hidden_layers - model.first_k_dense_replace + model.num_nextn_predict_layers;
  const copies = expertParallel * (1 - (1 - 1 / expertParallel) ** model.num_experts_per_tok);
  const away = expertParallel > 1 ? copies : 0;
  const dense = listParameters(model).filter(({ name }) => !name.includes('.experts.'));
  return {
    rowBytes: 4 * layers * tokens * away * model.hidden_size * 2,
    sumBytes: 2 * 4 * dense.reduce((n, one) => n + elementCount(one.shape), 0) * ((size - 1) / size),
  };
}

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
  engine: EngineCosts,
): number | undefined {
  const sequences = Math.max(1, Math.round(mean.sequences));
  const context = Math.round(mean.context);
  const drafted = Math.min(1, Math.max(0, mean.rows / mean.sequences - 1));
  const seconds = [1, 2].map((tokens) => {
    const { seconds: sum, parts } = predictOps(
      countInference({ sequences, tokens, context }, model, like),
      engine,
    );
    return parts.length > 0 ? sum : Number.NaN;
  }) as [number, number];
  const predicted = (1 - drafted) * seconds[0] + drafted * seconds[1];
  return Number.isFinite(predicted) ? predicted : undefined;
}
