import { bubbleSeconds, makeSchedule, peakActivations } from '../plan/pipeline/formulas.js';
import type { ScheduleName } from '../plan/pipeline/schedule.js';
import { simulate } from '../plan/pipeline/simulate.js';
import { timelineSvg } from '../report/timeline.js';
import { banded, type Chart, type Reproduction } from './row.js';

/** Passes as long as in table 4 in proportion: 1F 1.13 s, 1B 1.99 s, 1W 0.48 s, in sixteenths; a pair is 3. */
const TIMES = { forward: 1.125, backward: 2, backwardWeights: 0.5, overlapped: 3 };
const [DEVICES, COUNT] = [16, 64];

const PRINTED: readonly [string, ScheduleName][] = [
  ['1F1B', '1f1b'],
  ['ZB1P', 'zb-h1'],
  ['DualPipe', 'dualpipe'],
];

/** [TR §3.2 table 2] bubbles by their formulas, beside the same schedules run event by event. */
export function bubbles(): Reproduction {
  const figures = PRINTED.flatMap(([name, schedule]) => {
    const { bubbles: waits, peakActivations: held } = simulate(makeSchedule(schedule, DEVICES, COUNT), TIMES);
    return [
      banded(`${name}: longest wait`, '', bubbleSeconds(schedule, DEVICES, TIMES), Math.max(...waits), 1e-9),
      banded(
        `${name}: activations held`,
        '',
        peakActivations(schedule, DEVICES, COUNT),
        Math.max(...held),
        1e-9,
      ),
    ];
  });
  return {
    source: 'TR §3.2, table 2',
    title: 'Pipeline bubbles: formulas of the report and events',
    figures,
    notes: [`${DEVICES} devices, ${COUNT} micro-batches, passes in units; "theirs" is the formula`],
    charts: (['1f1b', 'zb-h1', 'zb-v', 'dualpipe', 'dualpipe-v'] as const).map(draw),
  };
}

const KINDS = ['F', 'B', 'I', 'W', 'F with B'] as const;

function draw(name: ScheduleName): Chart {
  const schedule = makeSchedule(name, 4, 10);
  const { intervals } = simulate(schedule, TIMES);
  const bars = intervals.map(({ device, start, end, work }) => ({
    row: device,
    start,
    end,
    kind: work.length === 2 ? KINDS.indexOf('F with B') : KINDS.indexOf(work[0].kind),
    label: work.map(({ microBatch }) => String(microBatch)).join('|'),
  }));
  const title = `${name}, 4 devices, 10 micro-batches`;
  const rows = schedule.orders.map((_, d) => `device ${d}`);
  return { title, svg: timelineSvg({ title, xLabel: 'units of time', rows, kinds: KINDS, bars }) };
}
