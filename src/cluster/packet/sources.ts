import type { Journeys } from './journeys.js';

/** What the packet engine sends; as in `Flows`, with whole bytes and priorities. Legend: F flows, K priorities in use. */
export interface PacketFlows {
  readonly count: number;
  /** [F] whole numbers. */
  readonly bytes: Float64Array;
  /** [F] seconds: the earliest begin, or the wait after the last flow of `after`. */
  readonly start: Float64Array;
  /** [F + 1], [...]: flows that must have ended before; null where there are none. */
  readonly after: { readonly offsets: Int32Array; readonly flows: Int32Array } | null;
  /** [F] share of a port against other flows of its source; null where all are 1. */
  readonly weights: Float64Array | null;
  /** [F] bytes per second that a flow never exceeds, Infinity where there is no such cap; null where none has one. */
  readonly caps: Float64Array | null;
  /** [F] 0 is the most urgent in use. */
  readonly priorities: Uint8Array;
  readonly priorityCount: number;
  readonly journeys: Journeys;
}

/**
 * Sources: flows that have bytes to send, in a ring for each port and priority that they may leave by. A flow with several ways is in
 * several rings; whichever port is free sends its next packet.
 */
export class Sources {
  /** [F] bytes that have not been sent. */
  readonly left: Float64Array;
  /** [A] the flow of each way, and its ring: channel·K + priority. */
  readonly flowOf: Int32Array;
  readonly ringOf: Int32Array;
  /** [C·K] first and last way of each ring; [A] the next one. */
  private readonly first: Int32Array;
  private readonly last: Int32Array;
  private readonly next: Int32Array;
  private readonly listed: Uint8Array;
  /** [F] bytes that the flow at the head of a ring may send before it is the next one's turn. */
  private readonly allowance: Float64Array | null;

  constructor(
    private readonly flows: PacketFlows,
    channels: number,
    private readonly mtuBytes: number,
  ) {
    const { journeys, priorities, priorityCount, count } = flows;
    const ways = journeys.begins.length;
    this.left = flows.bytes.slice();
    this.flowOf = new Int32Array(ways);
    this.ringOf = new Int32Array(ways);
    this.first = new Int32Array(channels * priorityCount).fill(-1);
    this.last = new Int32Array(channels * priorityCount).fill(-1);
    this.next = new Int32Array(ways);
    this.listed = new Uint8Array(ways);
    this.allowance = flows.weights ? new Float64Array(count) : null;
    for (let flow = 0; flow < count; flow++) {
      for (let way = journeys.ways[flow]!; way < journeys.ways[flow + 1]!; way++) {
        this.flowOf[way] = flow;
        this.ringOf[way] = journeys.path[journeys.begins[way]!]! * priorityCount + priorities[flow]!;
      }
    }
  }

  /** @returns [C] 1 where no flow begins */
  freePorts(channels: number): Uint8Array {
    const free = new Uint8Array(channels).fill(1);
    for (const ring of this.ringOf) free[Math.floor(ring / this.flows.priorityCount)] = 0;
    return free;
  }

  /** @returns the way whose turn it is; -1 where there is none */
  head(ring: number): number {
    return this.first[ring]!;
  }

  /** At the end of its ring. @returns false where it is there already */
  list(way: number): boolean {
    if (this.listed[way] !== 0) return false;
    this.listed[way] = 1;
    const ring = this.ringOf[way]!;
    this.next[way] = -1;
    if (this.first[ring]! < 0) this.first[ring] = way;
    else this.next[this.last[ring]!] = way;
    this.last[ring] = way;
    return true;
  }

  /** Takes the way whose turn it is out of its ring. */
  unlist(ring: number): void {
    const way = this.first[ring]!;
    this.listed[way] = 0;
    this.first[ring] = this.next[way]!;
  }

  /** After it has sent: the next one's turn, unless it is in its ring alone or has a weight to use up. */
  turn(ring: number, bytes: number): void {
    const way = this.first[ring]!;
    if (this.last[ring] === way || this.isStill(this.flowOf[way]!, bytes)) return;
    this.first[ring] = this.next[way]!;
    this.next[this.last[ring]!] = way;
    this.next[way] = -1;
    this.last[ring] = way;
  }

  private isStill(flow: number, bytes: number): boolean {
    const { allowance } = this;
    if (!allowance) return false;
    if (allowance[flow]! < bytes) allowance[flow]! += this.flows.weights![flow]! * this.mtuBytes;
    allowance[flow]! -= bytes;
    return allowance[flow]! >= this.mtuBytes;
  }
}
