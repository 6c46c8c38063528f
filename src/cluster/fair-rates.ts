import { FairState } from './fair-state.js';
import { fill } from './fill.js';
import type { Flows } from './flows.js';
import { SlackLinks } from './slack-links.js';

/** Two levels this close count as equal: some hundred roundings of 2⁻⁵³. */
export const LEVEL_TOLERANCE = 1e-12;

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

  constructor(flows: Flows) {
    this.state = new FairState(flows);
    this.order = new Int32Array(this.state.linkCount);
    this.place = new Int32Array(this.state.linkCount).fill(-1);
    this.unsure = new Uint8Array(this.state.linkCount);
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
    for (let entry = offsets[flow]!; entry < offsets[flow + 1]!; entry++) {
      this.state.serve(links[entry]!, now);
      this.expect(links[entry]!, own, rate, -this.state.weightOf(entry));
    }
    this.state.remove(flow);
  }

  /** Adds a flow; `settle` must follow. @param remaining bytes over weight */
  insert(flow: number, remaining: number, now: number): void {
    const { offsets, links } = this.state.flows;
    const own = this.first(flow, now);
    const rate = this.state.level[own]!;
    for (let entry = offsets[flow]!; entry < offsets[flow + 1]!; entry++) {
      this.state.serve(links[entry]!, now);
      if (links[entry] !== own) this.slack.suspect(links[entry]!);
    }
    this.state.insert(flow, own, remaining);
    for (let entry = offsets[flow]!; entry < offsets[flow + 1]!; entry++) {
      this.expect(links[entry]!, own, rate, this.state.weightOf(entry));
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
    let place = at;
    let level = this.unsure[link] ? -1 : this.plainLevel(link);
    if (level < (at > 0 ? state.level[this.order[at - 1]!]! : 0)) {
      state.level[link] = this.waterLevel(link);
      place = this.moveDown(at);
      this.takeOver(link, place, now);
      level = this.plainLevel(link);
    }
    if (state.ownCount[link] === 0) {
      this.release(link);
      this.dirty = place;
      return;
    }
    state.level[link] = level;
    this.slack.grew(link, level);
    state.foresee(link, now);
    const to = this.moveDown(place);
    this.dirty = to < place ? to : place + 1;
  }

  /** What foreign flows leave to each own flow. */
  private plainLevel(link: number): number {
    const { state } = this;
    return Math.max(0, (state.flows.capacity[link]! - this.sum(link)) / state.ownWeight[link]!);
  }

  /**
   * The level x of a link at which own flows with x and foreign flows with the lower of x and their own level fill it. Foreign
   * flows above x come out one scan after the other, x rising, until none is left [as Newton's method on a concave function].
   */
  private waterLevel(link: number): number {
    let level = -Infinity;
    for (let last = -1; level !== last; ) {
      last = level;
      level = this.waterLevelAbove(link, level);
    }
    return Math.max(0, level);
  }

  /** One step of `waterLevel`: foreign flows above `level` count as own. */
  private waterLevelAbove(link: number, level: number): number {
    const { state } = this;
    const begin = state.base[link]!;
    const end = begin + state.foreignCount[link]!;
    let [own, taken] = [state.ownWeight[link]!, 0];
    for (let at = begin; at < end; at++) {
      const theirs = state.level[state.foreignBottleneck[at]!]!;
      const weight = state.foreignWeight ? state.foreignWeight[at]! : 1;
      if (theirs > level * (1 + LEVEL_TOLERANCE)) own += weight;
      else taken += weight * theirs;
    }
    return own > 0 ? Math.max(level, (state.flows.capacity[link]! - taken) / own) : level;
  }

  /** What foreign flows of a link take. */
  private sum(link: number): number {
    const { level, foreignBottleneck, foreignWeight, base, foreignCount } = this.state;
    const begin = base[link]!;
    const end = begin + foreignCount[link]!;
    return foreignWeight
      ? weightedSum(level, foreignBottleneck, foreignWeight, begin, end)
      : plainSum(level, foreignBottleneck, begin, end);
  }

  /** Foreign flows whose bottleneck stands behind the link at `at` become its own. */
  private takeOver(link: number, at: number, now: number): void {
    const { state, place } = this;
    const begin = state.base[link]!;
    for (let i = state.foreignCount[link]! - 1; i >= 0; i--) {
      const from = state.foreignBottleneck[begin + i]!;
      if (place[from]! < at) continue;
      state.serve(from, now);
      this.slack.parted(from);
      state.move(state.foreign[begin + i]!, link, now);
    }
    this.unsure[link] = 0;
  }

  /** Makes a slack link saturated, about where its level will be. */
  private saturate(link: number, level: number): void {
    this.slack.leave(link);
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
    if (to < at) this.unsure[link] = 1;
    return to;
  }

  /** Moves the link at `at` behind those of lower level. */
  private moveUp(at: number): void {
    const { order, place } = this;
    const { level } = this.state;
    const link = order[at]!;
    let to = at;
    while (to + 1 < this.count && level[order[to + 1]!]! < level[link]!) {
      order[to] = order[to + 1]!;
      place[order[to]!] = to;
      this.unsure[order[to]!] = 1;
      to++;
    }
    order[to] = link;
    place[link] = to;
  }

  /**
   * Guesses a saturated link's level after a flow with this bottleneck comes (weight > 0) or goes, and moves the link there,
   * so that levelling finds it in its place. The guess is only an order; `settle` computes the levels.
   */
  private expect(link: number, bottleneck: number, rate: number, weight: number): void {
    const { state } = this;
    const at = this.place[link]!;
    if (at < 0) return;
    const own = state.ownWeight[link]!;
    const before = state.level[link]!;
    let guess = before - (weight * rate) / own;
    if (link === bottleneck)
      guess = weight < 0 ? (before * own) / (own + weight) : (before * (own - weight)) / own;
    this.dirty = Math.min(this.dirty, at);
    if (!(guess > 0 && guess < Infinity)) return;
    state.level[link] = guess;
    if (guess > before) this.moveUp(at);
    else this.dirty = Math.min(this.dirty, this.moveDown(at));
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
      const room = Math.max(0, capacity[link]! - this.sum(link)) / state.weightOf(entry);
      if (room < least) [best, least] = [link, room];
    }
    state.serve(best, now);
    this.saturate(best, least);
    return best;
  }
}

/** The loops that the engine's time goes into. */
function plainSum(level: Float64Array, of: Int32Array, begin: number, end: number): number {
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  let at = begin;
  for (; at + 3 < end; at += 4) {
    a += level[of[at]!]!;
    b += level[of[at + 1]!]!;
    c += level[of[at + 2]!]!;
    d += level[of[at + 3]!]!;
  }
  for (; at < end; at++) a += level[of[at]!]!;
  return a + b + (c + d);
}

function weightedSum(
  level: Float64Array,
  of: Int32Array,
  weight: Float64Array,
  begin: number,
  end: number,
): number {
  let a = 0;
  let b = 0;
  let at = begin;
  for (; at + 1 < end; at += 2) {
    a += weight[at]! * level[of[at]!]!;
    b += weight[at + 1]! * level[of[at + 1]!]!;
  }
  for (; at < end; at++) a += weight[at]! * level[of[at]!]!;
  return a + b;
}
