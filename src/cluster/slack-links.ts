import type { FairState } from './fair-state.js';
import { foreignSum } from './foreign-sums.js';

/** A slack link overflows beyond this share of its capacity; within it, roundings of the sum are meant. */
const OVERFLOW = 1e-11;

/** How far a level may lie below what is charged for it, as a share. */
const BAND = 0.004;

/**
 * The links that are not saturated, watched for overflow without summing their flows at every change. Every link is charged, for
 * each of its flows, a little more than the level of the flow's bottleneck: charges bound its load from above. A charge is
 * renewed only where the level leaves a narrow band below it, and only then are the paths of that bottleneck's own flows
 * walked. Only links whose charges exceed their capacity have to be summed.
 */
export class SlackLinks {
  private readonly members: Int32Array;
  /** [L] place among the members; -1 for saturated links. */
  private readonly place: Int32Array;
  private count = 0;
  /** [L] what flows are charged whose bottleneck the link is: at least its level. */
  private readonly charge: Float64Array;
  /** [L] charges of all flows of the link, times their coefficients. */
  private readonly charged: Float64Array;

  constructor(private readonly state: FairState) {
    this.members = new Int32Array(state.linkCount);
    this.place = new Int32Array(state.linkCount).fill(-1);
    this.charge = new Float64Array(state.linkCount);
    this.charged = new Float64Array(state.linkCount);
  }

  /** @param saturated [L] -1 for the links that are slack */
  reset(saturated: Int32Array): void {
    const { base, level, linkCount } = this.state;
    this.count = 0;
    this.place.fill(-1);
    this.charge.fill(0);
    this.charged.fill(0);
    for (let link = 0; link < linkCount; link++) {
      if (saturated[link]! >= 0) this.renew(link, level[link]!);
      else if (base[link + 1]! > base[link]!) this.join(link);
    }
  }

  /** A link is not saturated any more. */
  join(link: number): void {
    this.place[link] = this.count;
    this.members[this.count++] = link;
  }

  /** A link becomes saturated, at about this level. */
  leave(link: number, level: number): void {
    const at = this.place[link]!;
    const last = this.members[--this.count]!;
    this.members[at] = last;
    this.place[last] = at;
    this.place[link] = -1;
    this.charge[link] = level;
  }

  /** A flow has come (sign 1) or goes (sign -1); its bottleneck is known. */
  charging(flow: number, sign: number): void {
    this.chargePath(flow, sign * this.charge[this.state.bottleneck[flow]!]!);
  }

  /** The bottleneck of a flow changes. */
  moved(flow: number, from: number, to: number): void {
    this.chargePath(flow, this.charge[to]! - this.charge[from]!);
  }

  /** A saturated link has a new level. */
  leveled(link: number, level: number): void {
    const charge = this.charge[link]!;
    if (level > charge || level < charge * (1 - 2 * BAND)) this.renew(link, level);
  }

  private renew(link: number, level: number): void {
    const { base, ownCount, heap } = this.state;
    const charge = level * (1 + BAND);
    const more = charge - this.charge[link]!;
    this.charge[link] = charge;
    const end = base[link]! + ownCount[link]!;
    for (let at = base[link]!; at < end; at++) this.chargePath(heap[at]!, more);
  }

  private chargePath(flow: number, more: number): void {
    const { state, charged } = this;
    const { offsets, links } = state.flows;
    for (let entry = offsets[flow]!; entry < offsets[flow + 1]!; entry++) {
      charged[links[entry]!]! += more * state.weightOf(entry);
    }
  }

  /** A slack link that carries more than it can; -1 where there is none. */
  findOverflow(): number {
    const { capacity } = this.state.flows;
    const { members, charged } = this;
    for (let i = 0; i < this.count; i++) {
      const link = members[i]!;
      if (charged[link]! <= capacity[link]!) continue;
      if (foreignSum(this.state, link) > capacity[link]! * (1 + OVERFLOW)) return link;
    }
    return -1;
  }
}
