import { type BandPoint, lineSvg } from '../report/lines.js';
import type { Metrics } from './metrics.js';

/** Most points of the training curve; the losses of the steps between are averaged, the band shows their range. */
const POINTS = 120;

/** Training and validation loss over the steps of a run, as an SVG document. */
export function lossFigure(metrics: readonly Metrics[], title: string): string {
  const train = metrics.filter((entry) => typeof entry.loss === 'number');
  const window = Math.max(1, Math.ceil(train.length / POINTS));
  const starts = Array.from({ length: Math.ceil(train.length / window) }, (_, i) => i * window);
  const validation = metrics.flatMap(({ step, validationLoss: y }) =>
    typeof y === 'number' ? [{ x: step, y, low: y, high: y }] : [],
  );
  return lineSvg({
    title,
    xLabel: 'optimizer steps',
    yLabel: 'loss, nats per token',
    curves: [
      { name: 'training', points: starts.map((from) => average(train.slice(from, from + window))) },
      { name: 'validation', points: validation },
    ],
  });
}

function average(entries: readonly Metrics[]): BandPoint {
  const losses = entries.map(({ loss }) => loss as number);
  return {
    x: entries[entries.length - 1]!.step,
    y: losses.reduce((a, b) => a + b, 0) / losses.length,
    low: Math.min(...losses),
    high: Math.max(...losses),
  };
}
