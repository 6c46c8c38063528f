/** What can be measured of a training run, by name. New figures of the trainer become metrics by an entry here. */
import { countParameters } from '../model/parameters.js';
import { summariseModel } from '../model/summary.js';
import { parseScheme } from '../numerics/schemes.js';
import { bytes, count, duration, percent, rate } from '../report/units.js';
import { isMoeLayer, type ModelConfig } from '../spec/model.js';
import type { Recipe } from '../spec/precision.js';
import { type TrainConfig, tokensPerStep } from '../train/config.js';
import type { Metrics } from '../train/metrics.js';

/** A finished run. */
export interface MeasuredRun {
  config: TrainConfig;
  model: ModelConfig;
  recipe: Recipe;
  /** Lines of metrics.jsonl. */
  lines: readonly Metrics[];
  /** Largest resident set of the process, where it is known. */
  peakBytes: number | undefined;
}

export interface Metric {
  label: string;
  /** A value for people. */
  show(value: number): string;
  /** Undefined where the run does not tell. */
  measure(run: MeasuredRun): number | undefined;
}

/** Share of the steps, from the end, over which a metric is averaged, and the points that it takes at least. */
const TAIL = 0.25;
const TAIL_POINTS = 3;

const fixed = (digits: number) => (value: number) => value.toFixed(digits);

export const METRIC_NAMES = [
  'validationLoss',
  'trainLoss',
  'mtpLoss',
  'mtpAcceptance',
  'maxLoadViolation',
  'balanceLoss',
  'gradientNorm',
  'nodesPerToken',
  'nodeBytesPerToken',
  'combineBytesPerToken',
  'cacheBytesPerToken',
  'parameters',
  'activeParameters',
  'stepSeconds',
  'tokensPerSecond',
  'peakBytes',
] as const;
export type MetricName = (typeof METRIC_NAMES)[number];

export const METRICS: Record<MetricName, Metric> = {
  validationLoss: { label: 'validation loss', show: fixed(4), measure: late('validationLoss') },
  trainLoss: { label: 'training loss', show: fixed(4), measure: late('loss') },
  mtpLoss: { label: 'loss of the second token', show: fixed(4), measure: late('mtpLoss') },
  mtpAcceptance: { label: 'second token accepted', show: percent, measure: late('mtpAcceptance') },
  maxLoadViolation: { label: 'maximal load violation', show: fixed(3), measure: late('maxLoadViolation') },
  balanceLoss: { label: 'balance loss', show: fixed(3), measure: late('balanceLoss') },
  gradientNorm: { label: 'gradient norm', show: fixed(3), measure: late('gradientNorm') },
  nodesPerToken: { label: 'nodes per token', show: fixed(2), measure: late('nodesPerToken') },
  nodeBytesPerToken: { label: 'bytes across nodes per token', show: bytes, measure: nodeBytesPerToken },
  combineBytesPerToken: { label: 'combine bytes per token', show: bytes, measure: combineBytesPerToken },
  cacheBytesPerToken: {
    label: 'cache bytes per token',
    show: bytes,
    measure: ({ model }) => summariseModel(model).cacheBytesPerToken,
  },
  parameters: { label: 'parameters', show: count, measure: ({ model }) => countParameters(model).total },
  activeParameters: {
    label: 'active parameters',
    show: count,
    measure: ({ model }) => countParameters(model).active,
  },
  stepSeconds: { label: 'step time', show: duration, measure: stepSeconds },
  tokensPerSecond: {
    label: 'speed',
    show: (value) => rate(value, 'tokens'),
    measure: ({ lines }) => median(series(lines, 'tokensPerSecond').map(({ value }) => value)),
  },
  peakBytes: { label: 'peak memory', show: bytes, measure: (run) => run.peakBytes },
};

/** The values of a field of metrics.jsonl by step; the first element where it is a list. */
export function series(lines: readonly Metrics[], field: string): { step: number; value: number }[] {
  return lines.flatMap(({ step, [field]: content }) => {
    const value = Array.isArray(content) ? content[0] : content;
    return typeof value === 'number' ? [{ step, value }] : [];
  });
}

/** The mean of a field over the last steps of the run. */
function late(field: string): Metric['measure'] {
  return ({ lines, config }) => {
    const points = series(lines, field);
    const recent = points.filter(({ step }) => step > config.steps * (1 - TAIL));
    const chosen = recent.length >= TAIL_POINTS ? recent : points.slice(-TAIL_POINTS);
    if (chosen.length === 0) return undefined;
    return chosen.reduce((sum, { value }) => sum + value, 0) / chosen.length;
  };
}

function stepSeconds(run: MeasuredRun): number | undefined {
  const speed = METRICS.tokensPerSecond.measure(run);
  return speed && tokensPerStep(run.config) / speed;
}

function median(values: readonly number[]): number | undefined {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

// ---- Bytes that expert parallelism moves, by the formulas of [ISCA §4.3] -----------------------------------------

/**
 * Bytes that leave a token's own node and come back, over all layers with experts: a copy is sent to each node with a
 * chosen expert, not to each expert. Groups of experts are the nodes; the token's own is as likely as any.
 */
function nodeBytesPerToken(run: MeasuredRun): number | undefined {
  const { model, recipe } = run;
  const nodes = METRICS.nodesPerToken.measure(run);
  if (nodes === undefined) return undefined;
  const away = nodes * (1 - 1 / model.n_group);
  const there = rowBytes(recipe.expertUp.fprop.input.format, model.hidden_size);
  return away * (there + rowBytes(combineFormat(recipe), model.hidden_size)) * moeLayers(model);
}

/** Bytes of all expert outputs of a token, over all layers with experts. */
function combineBytesPerToken({ model, recipe }: MeasuredRun): number {
  return model.num_experts_per_tok * rowBytes(combineFormat(recipe), model.hidden_size) * moeLayers(model);
}

const combineFormat = (recipe: Recipe): string => recipe.combine?.format ?? recipe.activations;

const moeLayers = (model: ModelConfig): number =>
  Array.from({ length: model.num_hidden_layers }, (_, layer) => layer).filter((layer) =>
    isMoeLayer(model, layer),
  ).length;

/** Bytes of one row of `columns` values with their scales. */
const rowBytes = (format: string, columns: number): number =>
  format === 'fp32' ? 4 * columns : parseScheme(format).bits(1, columns) / 8;
