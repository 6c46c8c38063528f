import { join } from 'node:path';
import { curve } from '../report/spark.js';
import { list } from '../report/table.js';
import { bytes, count, duration, percent, rate } from '../report/units.js';
import type { Metrics } from '../train/metrics.js';
import type { TrainResult } from '../train/run.js';

/** A run's loss curve and the figures of one process's part of it, for people. */
export async function describeTraining(result: TrainResult): Promise<string> {
  const { loss, parameters, memory } = result;
  const figures = list([
    [
      'run',
      `${result.out}, ${result.steps} steps${result.ended === 'complete' ? '' : ', go on with --resume'}`,
    ],
    ['parameters', `${count(parameters.total)} total, ${count(parameters.active)} active per token`],
    ['loss', `${number(loss.first)} → ${number(loss.final)}; validation ${number(loss.validation)}`],
    ['speed', speed(result)],
    [
      'memory',
      `${bytes(result.peakBytes)} at its peak; ${bytes(memory.predicted.total)} of it predicted for the model`,
    ],
    ['time', duration(result.seconds)],
  ]);
  return `${await lossCurve(result.out)}\n\n${figures}`;
}

/** The loss over all steps of the run in `out`, from its metrics. */
export async function lossCurve(out: string): Promise<string> {
  const { readMetrics } = await import('../train/metrics.js');
  const points = readMetrics(join(out, 'metrics.jsonl')).flatMap(pointOf);
  return curve(points, { title: 'training loss', xLabel: 'steps' });
}

const pointOf = ({ step, loss }: Metrics): { x: number; y: number }[] =>
  typeof loss === 'number' ? [{ x: step, y: loss }] : [];

const speed = ({ tokensPerSecond, mfu }: TrainResult): string =>
  rate(tokensPerSecond, 'tokens') + (mfu === null ? '' : `, ${percent(mfu)} of this machine's BF16 peak`);

const number = (value: number): string => value.toFixed(3);
