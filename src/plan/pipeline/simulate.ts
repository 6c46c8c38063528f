import { UserError } from '../../errors.js';
import type { Pass, Schedule, Work } from './schedule.js';

/** Seconds of the work of one stage on one micro-batch. */
export interface PassTimes {
  forward: number;
  /** The whole backward pass, the weights' half included. */
  backward: number;
  /** The half of it for the weights. */
  backwardWeights: number;
  /** A forward and a whole backward pass that overlap; their sum where absent. */
  overlapped?: number;
  /** From the end of a pass to its use on another device. */
  send?: number;
}

/** Seconds of work where stages differ. */
export interface WorkTimes {
  seconds: (work: Work, routeOf: readonly number[]) => number;
  send?: number;
}

/** One piece of work as it was done; seconds from the start of the step. */
export interface Interval {
  device: number;
  start: number;
  end: number;
  work: Work;
}

export interface Timeline {
  /** Seconds until the last device is done. */
  seconds: number;
  /** Per device: seconds in which it had nothing to do. */
  bubbles: number[];
  /** Per device: most stage activations held at once; one is kept from its forward pass to the end of its last backward pass. */
  peakActivations: number[];
  intervals: Interval[];
}

/**
 * Runs a schedule event by event: work starts when its device is free and what it needs has arrived.
 * @throws UserError where the orders of the devices wait for each other
 */
export function simulate(schedule: Schedule, times: PassTimes | WorkTimes): Timeline {
  const run = new Run(schedule, times);
  while (run.advance());
  return run.timeline();
}

class Run {
  private readonly next: number[];
  private readonly free: number[];
  private readonly busy: number[];
  private readonly done = new Map<string, { time: number; device: number }>();
  private readonly intervals: Interval[] = [];

  constructor(
    private readonly schedule: Schedule,
    private readonly times: PassTimes | WorkTimes,
  ) {
    const zeros = () => new Array<number>(schedule.devices).fill(0);
    this.next = zeros();
    this.free = zeros();
    this.busy = zeros();
  }

  /** Lets every device do what it can; false once nothing moves. */
  advance(): boolean {
    let moved = false;
    for (let device = 0; device < this.schedule.devices; device++) while (this.step(device)) moved = true;
    return moved;
  }

  private step(device: number): boolean {
    const work = this.schedule.orders[device]![this.next[device]!];
    if (!work) return false;
    let start = this.free[device]!;
    for (const pass of work) {
      const arrival = this.arrival(pass, device);
      if (arrival === undefined) return false;
      start = Math.max(start, arrival);
    }
    const end = start + this.seconds(work);
    for (const pass of work) this.done.set(key(pass), { time: end, device });
    this.intervals.push({ device, start, end, work });
    this.next[device]!++;
    this.free[device] = end;
    this.busy[device]! += end - start;
    return true;
  }

  private seconds(work: Work): number {
    if ('seconds' in this.times) return this.times.seconds(work, this.schedule.routeOf);
    return seconds(work, this.times);
  }

  /** When the pass has what it needs; undefined while that is not known. */
  private arrival(pass: Pass, device: number): number | undefined {
    let latest = 0;
    for (const needed of inputs(pass, this.schedule)) {
      const found =
        this.done.get(key(needed)) ?? (needed.kind === 'I' && this.done.get(key({ ...needed, kind: 'B' })));
      if (!found) return undefined;
      latest = Math.max(latest, found.time + (found.device === device ? 0 : (this.times.send ?? 0)));
    }
    return latest;
  }

  timeline(): Timeline {
    const { schedule, intervals } = this;
    const stuck = schedule.orders.findIndex((order, device) => this.next[device]! < order.length);
    if (stuck >= 0) {
      const waiting = schedule.orders[stuck]![this.next[stuck]!]!.map(describe).join(' with ');
      throw new UserError(`${schedule.name}: device ${stuck} waits forever for the input of ${waiting}`);
    }
    const end = intervals.reduce((latest, interval) => Math.max(latest, interval.end), 0);
    return {
      seconds: end,
      bubbles: this.busy.map((busy) => end - busy),
      peakActivations: schedule.orders.map(peakActivations),
      intervals,
    };
  }
}

/** What must have been done before a pass. An `I` that was part of a whole `B` counts as done with it. */
function inputs({ kind, microBatch, stage }: Pass, { routes, routeOf }: Schedule): Pass[] {
  const stages = routes[routeOf[microBatch]!]!.length;
  if (kind === 'F') return stage === 0 ? [] : [{ kind, microBatch, stage: stage - 1 }];
  if (kind === 'W') return [{ kind: 'I', microBatch, stage }];
  const own: Pass = { kind: 'F', microBatch, stage };
  return stage === stages - 1 ? [own] : [own, { kind: 'I', microBatch, stage: stage + 1 }];
}

function seconds(work: Work, times: PassTimes): number {
  if (work.length === 2) return times.overlapped ?? times.forward + times.backward;
  const { forward: F, backward: B, backwardWeights: W } = times;
  return { F, B, I: B - W, W }[work[0].kind];
}

/** Most activations between their `F` and the `B` or `W` that frees them, in the order of a device. */
function peakActivations(order: readonly Work[]): number {
  let [held, peak] = [0, 0];
  for (const work of order) {
    // An overlapped pair needs the room of the new one before the old one is free.
    held += work.filter(({ kind }) => kind === 'F').length;
    peak = Math.max(peak, held);
    held -= work.filter(({ kind }) => kind === 'B' || kind === 'W').length;
  }
  return peak;
}

const key = ({ kind, microBatch, stage }: Pass): string => `${kind}${microBatch}/${stage}`;

const describe = ({ kind, microBatch, stage }: Pass): string =>
  `${kind} of micro-batch ${microBatch}, stage ${stage}`;
