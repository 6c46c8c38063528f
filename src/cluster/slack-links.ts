import type { FairState } from './fair-state.js';

/** A slack link overflows beyond this share of its capacity; within it, roundings of the sum are meant. */
const OVERFLOW = 1e-11;

/**
 * The links that are not saturated, watched for overflow without summing their flows at every change. Their loads are summed
 * at a reading; from then on, a flow's rate has grown at most as much as the level of the bottleneck it had at that
 * reading, so that load times the greatest growth of any level bounds the load. Only links that this bound no longer clears are
 * summed again, and a new reading is taken when that has become as dear.
 */
export class SlackLinks {
  private readonly members: Int32Array;
  /** [L] place among the members; -1 for saturated links. */
  private readonly place: Int32Array;
  private count = 0;
  /** [L] load at the last reading; Infinity where it has to be summed. */
  private readonly load: Float64Array;
  /** [L] levels at the last reading. */
  private readonly reading: Float64Array;
  /** [L] 1 where a flow that had this bottleneck at the last reading may have another now. */
  private readonly left: Uint8Array;
  private growth = 1;
  private summed = 0;
  private readingCost = 0;

  constructor(private readonly state: FairState) {
    this.members = new Int32Array(state.linkCount);
    this.place = new Int32Array(state.linkCount).fill(-1);
    this.load = new Float64Array(state.linkCount);
    this.reading = new Float64Array(state.linkCount);
    this.left = new Uint8Array(state.linkCount);
  }

  /** @param saturated [L] -1 for the links that are slack */
  reset(saturated: Int32Array): void {
    this.count = 0;
    this.place.fill(-1);
    for (let link = 0; link < this.state.linkCount; link++) {
      const used = this.state.base[link + 1]! > this.state.base[link]!;
      if (saturated[link]! < 0 && used) this.join(link);
    }
    this.read();
  }

  join(link: number): void {
    this.place[link] = this.count;
    this.members[this.count++] = link;
    this.load[link] = Infinity;
    // Flows that this link held back at the reading, and that are still there, are bounded by it no more.
    if (this.left[link]) this.growth = Infinity;
  }

  leave(link: number): void {
    const at = this.place[link]!;
    const last = this.members[--this.count]!;
    this.members[at] = last;
    this.place[last] = at;
    this.place[link] = -1;
  }

  /** A flow has been added to this link. */
  suspect(link: number): void {
    this.load[link] = Infinity;
  }

  /** A flow under way has another bottleneck than this one now. */
  parted(link: number): void {
    this.left[link] = 1;
  }

  /** A saturated link has a new level. */
  grew(link: number, level: number): void {
    const growth = level / this.reading[link]!;
    if (growth > this.growth) this.growth = growth;
  }

  /** A slack link that carries more than it can; -1 where there is none. */
  findOverflow(): number {
    if (this.growth === Infinity || this.summed > this.readingCost) this.read();
    const { capacity } = this.state.flows;
    for (let i = 0; i < this.count; i++) {
      const link = this.members[i]!;
      if (this.load[link]! * this.growth <= capacity[link]!) continue;
      this.summed += this.state.foreignCount[link]! + 8;
      if (this.sum(link) > capacity[link]! * (1 + OVERFLOW)) return link;
    }
    return -1;
  }

  /** Sums all loads. */
  private read(): void {
    this.growth = 1;
    this.summed = 0;
    this.readingCost = 0;
    this.reading.set(this.state.level);
    this.left.fill(0);
    for (let i = 0; i < this.count; i++) {
      const link = this.members[i]!;
      this.load[link] = this.sum(link);
      this.readingCost += this.state.foreignCount[link]! + 8;
    }
  }

  private sum(link: number): number {
    const { level, foreignBottleneck, foreignWeight, base, foreignCount } = this.state;
    const begin = base[link]!;
    const end = begin + foreignCount[link]!;
    let load = 0;
    for (let at = begin; at < end; at++) {
      load += (foreignWeight ? foreignWeight[at]! : 1) * level[foreignBottleneck[at]!]!;
    }
    return load;
  }
}
