import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DOUBLES, EventQueue } from '../../src/cluster/packet/events.js';

/** Pushes delays, each from the time of the event before it is popped; pops all. @returns times and records in order */
function drive(queue: EventQueue, batches: readonly (readonly number[])[]): [number, number][] {
  const seen: [number, number][] = [];
  let batch = 0;
  const push = () => {
    for (const delay of batches[batch] ?? []) queue.push(queue.take(), queue.now + delay);
    batch++;
  };
  push();
  for (let id = queue.pop(); id >= 0 || batch < batches.length; id = queue.pop()) {
    if (id >= 0) {
      seen.push([queue.now, id]);
      expect(queue.doubles[id * DOUBLES]).toBe(queue.now);
    }
    push();
  }
  return seen;
}

/** The same by a list that is sorted anew each time, stably. */
function reference(batches: readonly (readonly number[])[]): [number, number][] {
  const seen: [number, number][] = [];
  let [batch, now, next] = [0, 0, 0];
  let pending: [number, number][] = [];
  const push = () => {
    for (const delay of batches[batch] ?? []) pending.push([now + delay, next++]);
    batch++;
  };
  push();
  while (pending.length > 0 || batch < batches.length) {
    pending = pending.toSorted(([a], [b]) => a - b);
    const first = pending.shift();
    if (first) {
      now = first[0];
      seen.push(first);
    }
    push();
  }
  return seen;
}

describe('the event queue', () => {
  it('gives events by time, those of a time as they were pushed, whether near, far or now', () => {
    // A wheel of 1,024 slots of 8 ps: delays within a slot, within a turn, and many turns away.
    const delay = fc.oneof(
      fc.constant(0),
      fc.integer({ min: 0, max: 20 }),
      fc.integer({ min: 0, max: 9000 }),
      fc.integer({ min: 0, max: 1e9 }),
    );
    const batches = fc.array(fc.array(delay, { maxLength: 6 }), { maxLength: 60 });
    fc.assert(
      fc.property(batches, (given) => {
        expect(drive(new EventQueue(0, 8, 1024), given)).toEqual(reference(given));
      }),
      { numRuns: 300 },
    );
  });

  it('sorts a full slot, and keeps records while it grows', () => {
    const batches = [Array.from({ length: 5000 }, (_, i) => (i * 7919) % 16)];
    expect(drive(new EventQueue(0, 16, 1024), batches)).toEqual(reference(batches));
  });

  it('hands records out again', () => {
    const queue = new EventQueue(4, 1, 1024);
    const [a, b] = [queue.take(), queue.take()];
    expect([a, b]).toEqual([4, 5]);
    queue.give(a);
    expect(queue.take()).toBe(a);
    expect(queue.recordBytes).toBe(6 * 32);
  });
});
