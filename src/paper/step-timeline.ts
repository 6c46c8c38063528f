import type { TrainSimulation } from '../plan/train-simulation.js';
import { timelineSvg } from '../report/timeline.js';
import type { Chart } from './row.js';

const KINDS = ['F', 'B', 'I', 'W', 'F with B'] as const;
/** The whole step would not fit; its beginning shows what matters. */
const SHOWN = 0.25;

/** The beginning of a simulated step on the devices of one pipeline. */
export function stepTimeline({ timeline, schedule }: TrainSimulation): Chart {
  const until = timeline.seconds * SHOWN;
  const bars = timeline.intervals
    .filter(({ start }) => start < until)
    .map(({ device, start, end, work }) => ({
      row: device,
      start,
      end,
      kind: work.length === 2 ? KINDS.indexOf('F with B') : KINDS.indexOf(work[0].kind),
      label: work.map(({ microBatch }) => String(microBatch)).join('|'),
    }));
  const title = `The first quarter of the step on the ${schedule.devices} devices of a pipeline`;
  const rows = schedule.orders.map((_, d) => `${d}`);
  return { title, svg: timelineSvg({ title, xLabel: 'seconds', rows, kinds: KINDS, bars }) };
}
