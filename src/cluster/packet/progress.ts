import { UserError } from '../../errors.js';
import { PICOSECONDS } from './ports.js';
import { followersOf } from './setup.js';
import type { PacketFlows } from './sources.js';
import type { PacketStats } from './stats.js';

/** How far flows have come. */
export class Progress {
  /** [F] seconds at which a first byte could be there, and at which the last one is. */
  readonly begin: Float64Array;
  readonly end: Float64Array;
  done = 0;
  /** Picoseconds of the last end. */
  last = 0;
  /** [F] bytes that have arrived; greatest sequence that has. */
  private readonly received: Float64Array;
  private readonly latest: Int32Array;
  /** [F] predecessors that have not ended, and [...] who waits for each. */
  private readonly waiting: Int32Array;
  private readonly followers: { offsets: Int32Array; flows: Int32Array } | null;

  constructor(
    private readonly flows: PacketFlows,
    private readonly stats: PacketStats,
  ) {
    const { count, after } = flows;
    this.begin = new Float64Array(count).fill(Number.NaN);
    this.end = new Float64Array(count).fill(Number.NaN);
    this.received = new Float64Array(count);
    this.latest = new Int32Array(count).fill(-1);
    this.waiting = new Int32Array(count);
    if (after) for (let f = 0; f < count; f++) this.waiting[f] = after.offsets[f + 1]! - after.offsets[f]!;
    this.followers = followersOf(flows);
  }

  /** Flows that wait for nobody. */
  *first(): Generator<number> {
    for (let flow = 0; flow < this.flows.count; flow++) if (this.waiting[flow] === 0) yield flow;
  }

  /** @returns picoseconds of the flow's start, once those before it have ended at `from` */
  started(flow: number, from: number): number {
    const start = from + Math.round(this.flows.start[flow]! * PICOSECONDS);
    this.begin[flow] = start / PICOSECONDS + this.flows.journeys.latency[flow]!;
    return start;
  }

  /** A packet is there. @returns whether it was the flow's last */
  arrived(flow: number, sequence: number, bytes: number): boolean {
    const late = this.latest[flow]! - sequence;
    if (late > 0) {
      this.stats.overtaken++;
      this.stats.mostLatePlaces = Math.max(this.stats.mostLatePlaces, late);
    } else this.latest[flow] = sequence;
    this.received[flow]! += bytes;
    return this.received[flow] === this.flows.bytes[flow];
  }

  /** @returns the flows that may start now @throws UserError where times are too long to be counted */
  ended(flow: number, now: number): number[] {
    if (now > Number.MAX_SAFE_INTEGER) {
      throw new UserError(
        'packets are timed in whole picoseconds, which end at 9,007 s; give higher rates or fewer bytes, or run flows',
      );
    }
    this.end[flow] = now / PICOSECONDS;
    this.last = now;
    this.done++;
    const ready: number[] = [];
    if (!this.followers) return ready;
    const { offsets, flows } = this.followers;
    for (let i = offsets[flow]!; i < offsets[flow + 1]!; i++) {
      if (--this.waiting[flows[i]!]! === 0) ready.push(flows[i]!);
    }
    return ready;
  }

  /** Why not all flows have ended though nothing is on its way. */
  stuck(nameOf: ((flow: number) => string) | undefined): UserError {
    const flow = this.end.findIndex((time) => Number.isNaN(time));
    return new UserError(
      `${nameOf?.(flow) ?? `flow ${flow}`} never begins: it waits for itself through the flows that it comes after; remove one of them from "after"`,
    );
  }
}
