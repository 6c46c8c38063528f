import { FairState } from './fair-state.js';
import { fill } from './fill.js';
import type { Flows } from './flows.js';
import { foreignSum } from './foreign-sums.js';
import { SlackLinks } from './slack-links.js';

/** Two levels this close count as equal: some hundred roundings of 2⁻⁵³. */
export const LEVEL_TOLERANCE = 1e-12;

/** Levels this close are looked at twice when flows change hands; far more than the tolerance adds up to. */
const NEAR = 1e-9;

/** No place in the order. */
const CLEAN = 0x3fffffff;

/**
 * Keeps max-min fair rates while flows come and go. Links that are saturated stand in the order of their levels, and a flow's
 * bottleneck is the first of its links in that order. A link's level follows from the links before it alone: own flows share
 * what foreign flows leave. So a change is confined to the links from the first one that it touches, which are
 * levelled again one by one, exactly:
 *
 * - where a link's level falls below that of links before it, it is moved in front of them and takes the flows that it shares
 *   with them, and all from there on are done again;
 * - a link whose flows all have bottlenecks before it is no longer saturated, and slack links that overflow become so.
 *
 * Only links that others passed in the order, or that moved (`unsure`), have to search their flows for those that are now theirs.
 */
export class FairRates {
  readonly state: FairState;
  /** Saturated links by rising level, `count` of them. */
  private readonly order: Int32Array;
  private count = 0;
  /** [L] place in `order`; -1 where the link is not saturated. */
  private readonly place: Int32Array;
  private readonly slack: SlackLinks;
  /** Everything in `order` from here on has to be levelled again. */
  private dirty = CLEAN;
  /** [L] 1 where foreign flows may have a bottleneck that stands behind the link. */
  private readonly unsure: Uint8Array;
  /** Results of `stepTo`. */
  private above = 0;
  private readonly found: Int32Array;
  private foundCount = 0;

  constructor(flows: Flows) {
    this.state = new FairState(flows);
    this.order = new Int32Array(this.state.linkCount);
    this.place = new Int32Array(this.state.linkCount).fill(-1);
    this.unsure = new Uint8Array(this.state.linkCount);
    this.found = new Int32Array(longestRow(this.state.base));
    this.slack = new SlackLinks(this.state);
    this.slack.reset(this.place);
  }

  /** Saturated links; only the first `saturatedCount` count. */
  get saturated(): Int32Array {
    return this.order;
  }

  get saturatedCount(): number {
    return this.count;
  }

  /** Takes exactly these flows as under way. @param active `endsAt` of each holds what it still has to send */
  rebuild(active: Int32Array, now: number): void {
    const saturated = fill(this.state, active, now);
    this.order.set(saturated);
    this.count = saturated.length;
    this.place.fill(-1);
    for (let i = 0; i < this.count; i++) this.place[this.order[i]!] = i;
    this.slack.reset(this.place);
    this.unsure.fill(0);
    this.dirty = CLEAN;
  }

  /** Takes a flow out; `settle` must follow. */
  remove(flow: number, now: number): void {
    const { offsets, links } = this.state.flows;
    const own = this.state.bottleneck[flow]!;
    const rate = this.state.level[own]!;
    this.slack.charging(flow, -1);
    this.state.remove(flow);
    for (let entry = offsets[flow]!; entry < offsets[flow + 1]!; entry++) {
      this.state.serve(links[entry]!, now);
      this.expect(links[entry]!, own, rate, -this.state.weightOf(entry), now);
    }
  }

  /** Adds a flow; `settle` must follow. @param remaining bytes over weight */
  insert(flow: number, remaining: number, now: number): void {
    const { offsets, links } = this.state.flows;
    const own = this.first(flow, now);
    const rate = this.state.level[own]!;
    for (let entry = offsets[flow]!; entry < offsets[flow + 1]!; entry++) {
      this.state.serve(links[entry]!, now);
    }
    this.state.insert(flow, own, remaining);
    this.slack.charging(flow, 1);
    for (let entry = offsets[flow]!; entry < offsets[flow + 1]!; entry++) {
      this.expect(links[entry]!, own, rate, this.state.weightOf(entry), now);
    }
  }

  /** Levels all that is touched. */
  settle(now: number): void {
    const { state } = this;
    const limit = 64 * (this.count + 64) * 64;
    for (let steps = 0; ; steps++) {
      while (this.dirty < this.count) {
        if (++steps > limit) this.startOver(now);
        else this.level(this.dirty, now);
      }
      const overflowing = this.slack.findOverflow();
      if (overflowing < 0) break;
      state.serve(overflowing, now);
      this.saturate(overflowing, this.waterLevel(overflowing));
    }
    this.dirty = CLEAN;
  }

  /** Should the order ever not come to rest, as with levels that differ by roundings only: all from nothing. */
  private startOver(now: number): void {
    const active: number[] = [];
    for (let flow = 0; flow < this.state.bottleneck.length; flow++) {
      if (this.state.bottleneck[flow]! >= 0) active.push(flow);
    }
    for (const flow of active) this.state.endsAt[flow] = this.state.remaining(flow, now);
    this.rebuild(Int32Array.from(active), now);
  }

  /** Levels the link at `at` and sets `dirty` to the next one. */
  private level(at: number, now: number): void {
    const { state } = this;
    const link = this.order[at]!;
    state.serve(link, now);
    const level = this.plainLevel(link);
    const before = at > 0 ? state.level[this.order[at - 1]!]! : 0;
    if (this.unsure[link] || !(level >= before) || state.ownCount[link] === 0)
      this.levelAgain(at, level, now);
    else {
      this.setLevel(link, level, now);
      this.dirty = at + 1;
    }
  }

  /** Levels a link that may have to go before others, or take flows from them. @param start its level if not */
  private levelAgain(at: number, start: number, now: number): void {
    const { state } = this;
    const link = this.order[at]!;
    state.level[link] = this.waterLevel(link, start);
    const place = this.moveDown(at);
    const touched = this.takeOver(link, place, now);
    if (state.ownCount[link] === 0) {
      this.release(link);
      this.dirty = place;
      return;
    }
    this.setLevel(link, touched === CLEAN ? start : this.plainLevel(link), now);
    // Links that it has passed without taking flows are as they were.
    const to = this.moveDown(place);
    if (to < place) this.unsure[link] = 1;
    this.dirty = to < place ? to : Math.min(at + 1, touched);
  }

  private setLevel(link: number, level: number, now: number): void {
    this.state.level[link] = level;
    this.slack.leveled(link, level);
    this.state.foresee(link, now);
  }

  /** What foreign flows leave to each own flow; Infinity or NaN where there is none. */
  private plainLevel(link: number): number {
    const { state } = this;
    const room = state.flows.capacity[link]! - foreignSum(state, link);
    return Math.max(0, room / state.ownWeight[link]!);
  }

  /**
   * The level x of a link at which own flows with x and foreign flows with the lower of x and their own level fill it: Newton's
   * method on a concave function, which comes from below after its first step, one scan of the foreign flows a step.
   * @param start where to begin; best the level that own flows alone would have
   */
  private waterLevel(link: number, start = -Infinity): number {
    const { state } = this;
    let level = Number.isFinite(start) ? start : -Infinity;
    let own = Number.isFinite(start) ? state.ownWeight[link]! : Number.NaN;
    for (let step = 0; ; step++) {
      const next = this.stepTo(link, level);
      // The same flows as before are above the level: it is theirs.
      if (this.above === own || this.above === 0) return Math.max(0, level);
      own = this.above;
      if (step > 0 && next <= level) return Math.max(0, level);
      level = next;
    }
  }

  /**
   * One step of `waterLevel`: foreign flows above `level` count as own; `above` is the weight of all that do, `found` where they
   * stand, and those as good as equal.
   */
  private stepTo(link: number, level: number): number {
    const { state } = this;
    const { foreignBottleneck, foreignWeight } = state;
    const begin = state.base[link]!;
    const end = begin + state.foreignCount[link]!;
    const bound = level * (1 + LEVEL_TOLERANCE);
    const near = level * (1 - NEAR);
    let [own, taken, found] = [state.ownWeight[link]!, 0, 0];
    for (let at = begin; at < end; at++) {
      const theirs = state.level[foreignBottleneck[at]!]!;
      const weight = foreignWeight ? foreignWeight[at]! : 1;
      if (theirs > near) this.found[found++] = at;
      if (theirs > bound) own += weight;
      else taken += weight * theirs;
    }
    this.above = own;
    this.foundCount = found;
    return (state.flows.capacity[link]! - taken) / own;
  }

  /**
   * Foreign flows whose bottleneck stands behind the link at `at` become its own. Of a link that is sure of the order behind it,
   * they are among those that the last `stepTo` found.
   * @returns the first place behind `at` of a link whose flows have changed by that
   */
  private takeOver(link: number, at: number, now: number): number {
    const { state, place, unsure } = this;
    const begin = state.base[link]!;
    let touched = CLEAN;
    const count = unsure[link] ? state.foreignCount[link]! : this.foundCount;
    for (let i = count - 1; i >= 0; i--) {
      const entry = unsure[link] ? begin + i : this.found[i]!;
      const from = state.foreignBottleneck[entry]!;
      if (place[from]! < at) continue;
      const flow = state.foreign[entry]!;
      touched = Math.min(touched, this.firstBehind(flow, at));
      state.serve(from, now);
      this.slack.moved(flow, from, link);
      state.move(flow, link, now);
    }
    unsure[link] = 0;
    return touched;
  }

  /** The first place behind `at` of a link on a flow's path. */
  private firstBehind(flow: number, at: number): number {
    const { offsets, links } = this.state.flows;
    let first = CLEAN;
    for (let entry = offsets[flow]!; entry < offsets[flow + 1]!; entry++) {
      const place = this.place[links[entry]!]!;
      if (place > at && place < first) first = place;
    }
    return first;
  }

  /** Makes a slack link saturated, about where its level will be. */
  private saturate(link: number, level: number): void {
    this.slack.leave(link, level);
    this.state.served[link] = 0;
    this.state.level[link] = level;
    this.order[this.count] = link;
    this.place[link] = this.count;
    this.dirty = Math.min(this.dirty, this.moveDown(this.count++));
    this.unsure[link] = 1;
  }

  /** A link without own flows is slack. */
  private release(link: number): void {
    const { order, place } = this;
    const at = place[link]!;
    order.copyWithin(at, at + 1, this.count);
    this.count--;
    for (let i = at; i < this.count; i++) place[order[i]!] = i;
    place[link] = -1;
    this.state.level[link] = Infinity;
    this.state.nextEnd[link] = Infinity;
    this.slack.join(link);
  }

  /** Moves the link at `at` in front of those of higher level. @returns its new place */
  private moveDown(at: number): number {
    const { order, place } = this;
    const { level } = this.state;
    const link = order[at]!;
    const bound = level[link]! * (1 + LEVEL_TOLERANCE);
    let to = at;
    while (to > 0 && level[order[to - 1]!]! > bound) {
      order[to] = order[to - 1]!;
      place[order[to]!] = to;
      to--;
    }
    order[to] = link;
    place[link] = to;
    return to;
  }

  /** Moves the link at `at` behind those of lower level, which take the flows that they share with it. */
  private moveUp(at: number, now: number): void {
    const { order, place, state } = this;
    const { level } = state;
    const link = order[at]!;
    let to = at;
    while (to + 1 < this.count && level[order[to + 1]!]! < level[link]!) {
      order[to] = order[to + 1]!;
      place[order[to]!] = to;
      to++;
    }
    order[to] = link;
    place[link] = to;
    if (to === at) return;
    const own = state.heap.slice(state.base[link]!, state.base[link]! + state.ownCount[link]!);
    for (const flow of own) {
      const first = this.firstBehind(flow, at - 1);
      if (first >= to) continue;
      state.serve(order[first]!, now);
      this.slack.moved(flow, link, order[first]!);
      state.move(flow, order[first]!, now);
    }
  }

  /**
   * Guesses a saturated link's level after a flow with this bottleneck has come (weight > 0) or gone, and moves the link there,
   * so that levelling finds it in its place. The guess is only an order; `settle` computes the levels.
   */
  private expect(link: number, bottleneck: number, rate: number, weight: number, now: number): void {
    const { state } = this;
    const at = this.place[link]!;
    if (at < 0) return;
    const own = state.ownWeight[link]!;
    const before = state.level[link]!;
    const guess = link === bottleneck ? (before * (own - weight)) / own : before - (weight * rate) / own;
    this.dirty = Math.min(this.dirty, at);
    if (!(guess > 0 && guess < Infinity)) return;
    state.level[link] = guess;
    if (guess > before) {
      this.moveUp(at, now);
      return;
    }
    const to = this.moveDown(at);
    if (to < at) this.unsure[link] = 1;
    this.dirty = Math.min(this.dirty, to);
  }

  /** The first link of a flow's path in the order; where none is saturated, the one with least room becomes so. */
  private first(flow: number, now: number): number {
    const { state } = this;
    const { offsets, links, capacity } = state.flows;
    let [best, least] = [-1, Infinity];
    for (let entry = offsets[flow]!; entry < offsets[flow + 1]!; entry++) {
      const place = this.place[links[entry]!]!;
      if (place >= 0 && place < least) [best, least] = [links[entry]!, place];
    }
    if (best >= 0) return best;
    for (let entry = offsets[flow]!; entry < offsets[flow + 1]!; entry++) {
      const link = links[entry]!;
      const room = Math.max(0, capacity[link]! - foreignSum(state, link)) / state.weightOf(entry);
      if (room < least) [best, least] = [link, room];
    }
    state.serve(best, now);
    this.saturate(best, least);
    return best;
  }
}

/** Entries of the link that has most. */
function longestRow(base: Int32Array): number {
  let longest = 0;
  for (let link = 1; link < base.length; link++) longest = Math.max(longest, base[link]! - base[link - 1]!);
  return longest;
}
