import { describe, expect, it } from 'vitest';
import {
  bubbleSeconds,
  makeSchedule,
  peakActivations,
  sendsInLine,
} from '../../src/plan/pipeline/formulas.js';
import { SCHEDULE_NAMES, type Schedule } from '../../src/plan/pipeline/schedule.js';
import { type PassTimes, simulate } from '../../src/plan/pipeline/simulate.js';

/** All binary fractions, so that sums are exact whatever their order. */
const TIMES: PassTimes[] = [
  { forward: 1, backward: 2, backwardWeights: 1 },
  { forward: 1, backward: 2, backwardWeights: 0.5 },
  { forward: 1, backward: 2.25, backwardWeights: 1, overlapped: 2.75 },
  // As in table 4 of the paper, 1F 1.13 s, 1B 1.99 s, 1W 0.48 s, in sixteenths.
  { forward: 1.125, backward: 2, backwardWeights: 0.5, overlapped: 3 },
];

const SIZES = [
  [2, 8],
  [4, 20],
  [8, 32],
  [16, 64],
] as const;

describe.each(SCHEDULE_NAMES)('%s', (name) => {
  it.each(SIZES)(
    'on %i devices with %i micro-batches waits as long as its formula says',
    (devices, count) => {
      // ZB-V has a formula for equal passes only.
      for (const times of name === 'zb-v' ? TIMES.slice(0, 1) : TIMES) {
        const { bubbles } = simulate(makeSchedule(name, devices, count), times);
        expect(Math.max(...bubbles)).toBe(bubbleSeconds(name, devices, times));
      }
    },
  );

  it.each(SIZES)(
    'on %i devices with %i micro-batches holds as many activations as its formula says',
    (devices, count) => {
      const { peakActivations: held } = simulate(makeSchedule(name, devices, count), TIMES[0]!);
      expect(Math.max(...held)).toBe(peakActivations(name, devices, count));
    },
  );

  it.each(SIZES.slice(1))(
    'on %i devices with %i micro-batches sends as often in a line as its formula says',
    (devices, count) => {
      const send = 2 ** -10;
      const schedule = makeSchedule(name, devices, count);
      const more = simulate(schedule, { ...TIMES[2]!, send }).seconds - simulate(schedule, TIMES[2]!).seconds;
      const difference = Math.abs(more / send - sendsInLine(name, devices, count));
      expect(difference).toBeLessThanOrEqual(name === 'zb-v' ? 2 : 0);
    },
  );

  it('does every pass of every micro-batch once, on its own device', () => {
    const schedule = makeSchedule(name, 4, 16);
    const { intervals } = simulate(schedule, TIMES[0]!);
    const halves = { F: ['F'], B: ['I', 'W'], I: ['I'], W: ['W'] } as const;
    const done = intervals.flatMap(({ device, work }) =>
      work.flatMap(({ kind, microBatch, stage }) =>
        halves[kind].map((half) => `${half} ${microBatch} ${stage} ${device}`),
      ),
    );
    expect([...done].sort()).toEqual(everyPass(schedule).sort());
  });

  it('never does two things at once', () => {
    const { intervals } = simulate(makeSchedule(name, 4, 16), { ...TIMES[3]!, send: 0.25 });
    for (let device = 0; device < 4; device++) {
      const own = intervals.filter((interval) => interval.device === device);
      for (let i = 1; i < own.length; i++) expect(own[i]!.start).toBeGreaterThanOrEqual(own[i - 1]!.end);
    }
  });
});

function everyPass({ routes, routeOf }: Schedule): string[] {
  return routeOf.flatMap((route, microBatch) =>
    routes[route]!.flatMap((device, stage) =>
      ['F', 'I', 'W'].map((half) => `${half} ${microBatch} ${stage} ${device}`),
    ),
  );
}

describe('orders that cannot be', () => {
  it('names the device that waits for ever', () => {
    const schedule = makeSchedule('1f1b', 2, 2);
    const orders = [[...schedule.orders[0]!].reverse(), schedule.orders[1]!];
    expect(() => simulate({ ...schedule, orders }, TIMES[0]!)).toThrow(
      /device 0 waits forever for .* B of micro-batch 1, stage 0/,
    );
  });

  it.each([
    ['dualpipe', 3, 8, /even number of devices/],
    ['dualpipe', 4, 9, /even number of micro-batches/],
    ['dualpipe', 4, 6, /at least 8 micro-batches, not 6/],
    ['interleaved', 4, 6, /multiples of the 4 devices; take 8/],
    ['zb-h1', 4, 2, /at least 4 micro-batches/],
  ] as const)('%s on %i devices with %i micro-batches', (name, devices, count, message) => {
    expect(() => makeSchedule(name, devices, count)).toThrow(message);
  });
});
