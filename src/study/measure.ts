import path from 'node:path';
import { recipeOf, type TrainConfig } from '../train/config.js';
import { type Metrics, readMetrics } from '../train/metrics.js';
import { METRIC_NAMES, METRICS, type MeasuredRun, series } from './metrics.js';
import type { PlannedVariant } from './plan.js';
import type { RunRecord } from './results.js';

/** Digits of a loss in a curve: FP32 has seven. */
const CURVE_DIGITS = 7;

/**
 * All figures of the finished run in `folder`.
 * @param peakBytes of its process, where that is known
 * @throws UserError where its metrics cannot be read
 */
export function measureRun(
  folder: string,
  { config, model }: PlannedVariant,
  peakBytes: number | undefined,
): Pick<RunRecord, 'metrics' | 'curves'> {
  const lines = scheduled(readMetrics(path.join(folder, 'metrics.jsonl')), config);
  const run: MeasuredRun = { config, model, recipe: recipeOf(config), lines, peakBytes };
  const values = METRIC_NAMES.map((name) => [name, METRICS[name].measure(run)] as const);
  const known = values.filter((entry): entry is [(typeof entry)[0], number] => Number.isFinite(entry[1]));
  const curve = (field: string): [number, number][] =>
    series(lines, field).map(({ step, value }) => [step, Number(value.toPrecision(CURVE_DIGITS))]);
  return {
    metrics: Object.fromEntries(known),
    curves: { loss: curve('loss'), validationLoss: curve('validationLoss') },
  };
}

/** Without the validations of a run that was broken off and resumed, so that runs are measured at the same steps. */
const scheduled = (lines: readonly Metrics[], { steps, validateEvery }: TrainConfig): Metrics[] =>
  lines.filter(
    ({ step, validationLoss }) =>
      validationLoss === undefined || step % validateEvery === 0 || step === steps,
  );
