import { checkCounts } from './orders.js';
import type { PassKind, Schedule, Work } from './schedule.js';

/**
 * ZB-V: two chunks a device on a route that goes down and comes back, backward passes split, activations bounded by those of
 * 1F1B [arXiv 2401.10241 §6]. The paper gives no closed order; as in its implementation the order is found greedily on a clock
 * on which F, I and W take one tick: forward passes as far as memory allows, then input gradients, then weight gradients.
 * @param microBatches at least 2P
 * @throws UserError where there are fewer
 */
export function zeroBubbleV(devices: number, microBatches: number): Schedule {
  checkCounts('zb-v', devices, microBatches, 2 * devices);
  const clock = new Clock(devices, microBatches);
  while (clock.tick());
  const down = Array.from({ length: devices }, (_, d) => d);
  const routeOf = Array.from({ length: microBatches }, () => 0);
  return {
    name: 'zb-v',
    devices,
    routes: [[...down, ...[...down].reverse()]],
    routeOf,
    orders: clock.orders,
  };
}

/** Passes done on one chunk of one device, each kind in the order of micro-batches. */
type Counts = Record<'F' | 'I' | 'W', number>;

class Clock {
  readonly orders: Work[][];
  /** Per stage of the route. */
  private readonly counts: Counts[];
  /** As they were when the tick began: what a tick produces is used in the next. */
  private before: Counts[] = [];

  constructor(
    private readonly devices: number,
    private readonly microBatches: number,
  ) {
    this.orders = Array.from({ length: devices }, () => []);
    this.counts = Array.from({ length: 2 * devices }, () => ({ F: 0, I: 0, W: 0 }));
  }

  /** Lets every device do one pass; false once none has anything left. */
  tick(): boolean {
    this.before = this.counts.map((counts) => ({ ...counts }));
    let unfinished = false;
    for (let device = 0; device < this.devices; device++) {
      const choice = this.choose(device);
      if (choice) this.do(device, ...choice);
      unfinished ||= this.stagesOf(device).some((stage) => this.counts[stage]!.W < this.microBatches);
    }
    return unfinished;
  }

  private choose(device: number): [PassKind & keyof Counts, number] | undefined {
    const [first, second] = this.stagesOf(device) as [number, number];
    // The returning chunk first: it leads to gradients.
    const room = this.held(device) < 2 * this.devices;
    if (room && this.ready('F', second)) return ['F', second];
    if (room && this.ready('F', first)) return ['F', first];
    if (this.ready('I', first)) return ['I', first];
    if (this.ready('I', second)) return ['I', second];
    if (this.ready('W', second)) return ['W', second];
    return this.ready('W', first) ? ['W', first] : undefined;
  }

  private ready(kind: keyof Counts, stage: number): boolean {
    const done = this.counts[stage]!;
    if (done[kind] >= this.microBatches) return false;
    if (kind === 'W') return done.W < done.I;
    if (kind === 'F') return stage === 0 || this.before[stage - 1]!.F > done.F;
    const own = this.before[stage]!.F > done.I;
    return own && (stage === this.counts.length - 1 || this.before[stage + 1]!.I > done.I);
  }

  /** Activations of chunks that a device holds. */
  private held(device: number): number {
    return this.stagesOf(device).reduce((sum, s) => sum + this.counts[s]!.F - this.counts[s]!.W, 0);
  }

  private do(device: number, kind: keyof Counts, stage: number): void {
    this.orders[device]!.push([{ kind, microBatch: this.counts[stage]![kind]++, stage }]);
  }

  private stagesOf(device: number): number[] {
    return [device, 2 * this.devices - 1 - device];
  }
}
