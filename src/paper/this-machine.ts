import { z } from 'zod';
import { UserError } from '../errors.js';
import { banded, type Figure, figure, type Reproduction } from './row.js';

/** What `fathom calibrate --check` found: steps that a calibration has not seen, predicted and measured. */
const predictions = z.looseObject({
  machine: z.string(),
  source: z.string(),
  predictions: z.array(
    z.looseObject({
      name: z.string(),
      predictedSeconds: z.number(),
      measuredSeconds: z.number(),
      predictedBytes: z.number().nullable(),
      measuredBytes: z.number().nullable(),
    }),
  ),
  medianDeviation: z.number(),
  worstDeviation: z.number(),
});
export type Predictions = z.infer<typeof predictions>;

/** @throws UserError where a file is no result of a check */
export function parsePredictions(json: unknown, source: string): Predictions {
  const parsed = predictions.safeParse(json);
  if (parsed.success) return parsed.data;
  throw new UserError(`${source} is no result of "fathom calibrate --check"; write it anew`);
}

/** What every single row may be off by; the median may be 10 %. */
const [WORST, MEDIAN] = [0.25, 0.1];

const CAUSE =
  'a step is the sum of its operations, whose bytes come as fast as so much memory is read; writes cost more than that where steps outgrow the caches, fixed parts of attention grow with the batch, and other programs use the machine';

/** The engine's own steps on a calibrated machine: the same descriptions, run and estimated. */
export function thisMachine(found: Predictions | undefined): Reproduction {
  const about = { source: 'Appendix', title: 'This machine, measured and predicted' };
  if (!found)
    return {
      ...about,
      figures: [],
      notes: ['not checked; run fathom calibrate, then fathom calibrate --check'],
    };
  const rows = found.predictions.flatMap((one): Figure[] => {
    const time = banded(one.name, 'ms', 1e3 * one.measuredSeconds, 1e3 * one.predictedSeconds, WORST, CAUSE);
    if (one.predictedBytes === null || one.measuredBytes === null) return [time];
    return [
      time,
      banded(`${one.name}: memory`, 'MB', one.measuredBytes / 1e6, one.predictedBytes / 1e6, MEDIAN),
    ];
  });
  return {
    ...about,
    figures: [
      ...rows,
      figure('median deviation of times', '%', null, 100 * found.medianDeviation),
      figure('worst deviation of times', '%', null, 100 * found.worstDeviation),
    ],
    notes: [
      'the column "paper" is what was measured; none of these configurations was used to calibrate',
      `${found.machine}; ${found.source}`,
      `target: median at most ${100 * MEDIAN} %, worst at most ${100 * WORST} %`,
    ],
  };
}
