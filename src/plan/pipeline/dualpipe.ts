import { UserError } from '../../errors.js';
import { checkCounts } from './orders.js';
import type { PassKind, Schedule, Work } from './schedule.js';

/**
 * DualPipe: micro-batches enter at both ends, and forward passes overlap with backward passes of the other direction
 * [TR §3.2.1]. DualPipe-V folds it: half the devices, each with two stages of one route that returns. The eight phases
 * and their lengths are those of DeepSeek's published schedule (github.com/deepseek-ai/DualPipe).
 */

/** Lengths of the phases on one device. */
interface Phases {
  /** F of the first direction alone. */
  warmUp: number;
  /** F of both directions in turn. */
  bothForward: number;
  /** I, W of the second direction, and its F. */
  zeroBubble: number;
  /** Overlapped pairs of both directions in turn. */
  steady: number;
  /** B of the second direction, then the pair of its F with B of the first. */
  drain: number;
  /** B of both directions in turn; the later half leaves its weight gradients for the next phases. */
  bothBackward: number;
  /** W, then I of the first direction. */
  weightsBetween: number;
  /** W. */
  weights: number;
}

/**
 * @param microBatches of both directions together; even, at least 2P
 * @throws UserError where P or the count does not fit
 */
export function dualPipe(devices: number, microBatches: number): Schedule {
  if (devices % 2 !== 0) throw new UserError(`dualpipe needs an even number of devices, not ${devices}`);
  if (microBatches % 2 !== 0) {
    throw new UserError(
      `dualpipe needs an even number of micro-batches, not ${microBatches}; half enter at each end`,
    );
  }
  checkCounts('dualpipe', devices, microBatches, 2 * devices);
  const half = microBatches / 2;
  const down = Array.from({ length: devices }, (_, d) => d);
  const orders = down.map((d) => {
    const fromEnd = Math.min(d, devices - 1 - d);
    const nearest = d < devices / 2 ? 0 : 1;
    const stage = (direction: number) => (direction === 0 ? d : devices - 1 - d);
    return phasedOrder(phasesOf(devices / 2, fromEnd, half - devices + fromEnd + 1), (direction) => {
      const route = direction === 0 ? nearest : 1 - nearest;
      return { first: route * half, stage: stage(route) };
    });
  });
  const routeOf = Array.from({ length: microBatches }, (_, m) => (m < half ? 0 : 1));
  return { name: 'dualpipe', devices, routes: [down, [...down].reverse()], routeOf, orders };
}

/**
 * @param microBatches at least 2P
 * @throws UserError where there are fewer
 */
export function dualPipeV(devices: number, microBatches: number): Schedule {
  checkCounts('dualpipe-v', devices, microBatches, 2 * devices);
  const down = Array.from({ length: devices }, (_, d) => d);
  const orders = down.map((d) =>
    phasedOrder(phasesOf(devices, d, microBatches - 2 * devices + d + 1), (direction) => ({
      first: 0,
      stage: direction === 0 ? d : 2 * devices - 1 - d,
    })),
  );
  const routeOf = Array.from({ length: microBatches }, () => 0);
  return { name: 'dualpipe-v', devices, routes: [[...down, ...[...down].reverse()]], routeOf, orders };
}

/** @param ranks devices of one arm @param rank of this device, counted from the end where the first direction enters */
function phasesOf(ranks: number, rank: number, steady: number): Phases {
  const inner = ranks - rank - 1;
  return {
    warmUp: 2 * inner,
    bothForward: rank + 1,
    zeroBubble: inner,
    steady,
    drain: inner,
    bothBackward: rank + 1,
    weightsBetween: inner,
    weights: rank + 1,
  };
}

/** First micro-batch and stage of a direction on a device. */
type Side = (direction: 0 | 1) => { first: number; stage: number };

function phasedOrder(phases: Phases, side: Side): Work[] {
  const device = new Device(side);
  const repeat = (count: number, work: (i: number) => void) => {
    for (let i = 0; i < count; i++) work(i);
  };
  repeat(phases.warmUp, () => device.forward(0));
  repeat(phases.bothForward, () => {
    device.forward(0);
    device.forward(1);
  });
  repeat(phases.zeroBubble, () => {
    device.inputs(1);
    device.weights();
    device.forward(1);
  });
  repeat(phases.steady, () => {
    device.pair(0, 1);
    device.pair(1, 0);
  });
  repeat(phases.drain, () => {
    device.backward(1);
    device.pair(1, 0);
  });
  const split = phases.bothBackward;
  repeat(split, (i) => {
    // From the middle on, odd counts one pass later, only the inputs' half is done at once.
    const late = i >= Math.floor(split / 2);
    const lateSecond = late && (i > Math.floor(split / 2) || split % 2 === 0);
    lateSecond ? device.inputs(1) : device.backward(1);
    late ? device.inputs(0) : device.backward(0);
  });
  repeat(phases.weightsBetween, () => {
    device.weights();
    device.inputs(0);
  });
  repeat(phases.weights, () => device.weights());
  return device.order;
}

/** What a device does next in each direction. */
class Device {
  readonly order: Work[] = [];
  private readonly forwards = [0, 0];
  private readonly backwards = [0, 0];
  /** Weight gradients left for later, first come first served. */
  private readonly waiting: { microBatch: number; stage: number }[] = [];

  constructor(private readonly side: Side) {}

  forward(direction: 0 | 1): void {
    this.order.push([{ kind: 'F', ...this.take(direction, this.forwards) }]);
  }

  backward(direction: 0 | 1): void {
    this.order.push([{ kind: 'B', ...this.take(direction, this.backwards) }]);
  }

  inputs(direction: 0 | 1): void {
    const taken = this.take(direction, this.backwards);
    this.order.push([{ kind: 'I', ...taken }]);
    this.waiting.push(taken);
  }

  weights(): void {
    const next = this.waiting.shift();
    if (next) this.order.push([{ kind: 'W', ...next }]);
  }

  /** F of one direction with B of the other. */
  pair(forward: 0 | 1, backward: 0 | 1): void {
    const pass = (kind: PassKind, direction: 0 | 1, counts: number[]) => ({
      kind,
      ...this.take(direction, counts),
    });
    this.order.push([pass('F', forward, this.forwards), pass('B', backward, this.backwards)]);
  }

  private take(direction: 0 | 1, counts: number[]): { microBatch: number; stage: number } {
    const { first, stage } = this.side(direction);
    return { microBatch: first + counts[direction]!++, stage };
  }
}
