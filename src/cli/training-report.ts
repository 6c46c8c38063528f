import { join } from 'node:path';
import { curve } from '../report/spark.js';
import { list } from '../report/table.js';
import { bytes, count, duration, percent, rate } from '../report/units.js';
import type { Metrics } from '../train/metrics.js';
import type { RankedResult } from '../train/ranks.js';
import type { TrainResult } from '../train/run.js';

/** A run's loss curve and the figures of one process's part of it, for people. */
export async function describeTraining(result: TrainResult | RankedResult): Promise<string> {
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
      `${bytes(result.peakBytes)} at its peak${memory.predicted ? `; ${bytes(memory.predicted.total)} of it predicted for the model` : ' of rank 0'}`,
    ],
    ['time', duration(result.seconds)],
    ...('ranks' in result ? [['ranks', describeRanks(result.ranks)] as [string, string]] : []),
  ]);
  return `${await lossCurve(result.out)}\n\n${figures}`;
}

/** `4 on 2 nodes, experts over 4; fp8:logfmt10 … `. */
function describeRanks({ size, nodes, expertParallel, wire, traffic }: RankedResult['ranks']): string {
  const { acrossPayloadBytes, withinPayloadBytes, waitSeconds, codecSeconds } = traffic;
  const share = (seconds: number) => duration(seconds / size);
  return (
    `${size} on ${nodes} ${nodes === 1 ? 'node' : 'nodes'}, experts over ${expertParallel}; ${wire}: ` +
    `${bytes(acrossPayloadBytes)} between nodes, ${bytes(withinPayloadBytes)} within; ` +
    `${share(codecSeconds)} coding, ${share(waitSeconds)} waiting a rank`
  );
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
