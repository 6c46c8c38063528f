import type { FairState } from './fair-state.js';

/**
 * Max-min fair levels from nothing by progressive filling [Bertsekas and Gallager, Data Networks, §6.5.2]: the rates of all flows
 * grow together until a link is full; its flows stay as they are, the others grow on. Writes levels, bottlenecks, heaps and lists.
 * @param active flows under way; `endsAt` of each holds what it still has to send, over its weight
 * @returns saturated links by rising level
 */
export function fill(state: FairState, active: Int32Array, now: number): Int32Array {
  const { flows, linkCount } = state;
  clear(state, now);
  const unfilled = listFlows(state, active);
  const room = flows.capacity.slice();
  const weight = state.ownWeight.slice();
  const queue = new LinkQueue(linkCount);
  for (let link = 0; link < linkCount; link++) {
    if (unfilled[link]! > 0) queue.push(link, room[link]! / weight[link]!);
  }
  const saturated: number[] = [];
  const { base, foreign, bottleneck, level } = state;
  const { offsets, links } = flows;
  for (let link = queue.pop(); link >= 0; link = queue.pop()) {
    if (unfilled[link] === 0) continue;
    // The share of a link only rises while others fill, so that an outdated place in the queue is too early, never too late.
    const share = Math.max(0, room[link]! / weight[link]!);
    if (share > queue.least()) {
      queue.push(link, share);
      continue;
    }
    level[link] = share;
    saturated.push(link);
    const end = base[link]! + state.foreignCount[link]!;
    for (let at = base[link]!; at < end; at++) {
      const flow = foreign[at]!;
      if (bottleneck[flow]! >= 0) continue;
      bottleneck[flow] = link;
      for (let entry = offsets[flow]!; entry < offsets[flow + 1]!; entry++) {
        const other = links[entry]!;
        const coefficient = state.weightOf(entry);
        room[other]! -= coefficient * share;
        weight[other]! -= coefficient;
        unfilled[other]!--;
      }
    }
  }
  divide(state, active);
  for (const link of saturated) state.foresee(link, now);
  return Int32Array.from(saturated);
}

function clear(state: FairState, now: number): void {
  state.level.fill(Infinity);
  state.served.fill(0);
  state.since.fill(now);
  state.nextEnd.fill(Infinity);
  state.ownWeight.fill(0);
  state.ownCount.fill(0);
  state.foreignCount.fill(0);
}

/** Puts all flows on all links of their paths into the foreign lists. @returns [L] how many */
function listFlows(state: FairState, active: Int32Array): Int32Array {
  const { offsets, links } = state.flows;
  for (const flow of active) {
    state.bottleneck[flow] = -1;
    for (let entry = offsets[flow]!; entry < offsets[flow + 1]!; entry++) {
      const link = links[entry]!;
      state.foreign[state.base[link]! + state.foreignCount[link]!++] = flow;
      state.ownWeight[link]! += state.weightOf(entry);
    }
  }
  return state.foreignCount.slice();
}

/** Own flows into heaps, foreign flows into lists. */
function divide(state: FairState, active: Int32Array): void {
  const { offsets, links } = state.flows;
  state.foreignCount.fill(0);
  state.ownWeight.fill(0);
  for (const flow of active) {
    const own = state.bottleneck[flow]!;
    for (let entry = offsets[flow]!; entry < offsets[flow + 1]!; entry++) {
      const link = links[entry]!;
      if (link === own) state.appendOwn(link, flow, state.weightOf(entry));
      else state.addForeign(link, entry, flow, own);
    }
  }
  for (let link = 0; link < state.linkCount; link++) if (state.ownCount[link]! > 1) state.order(link);
}

/** Links by a key, smallest first. */
class LinkQueue {
  private readonly links: Int32Array;
  private readonly keys: Float64Array;
  private count = 0;

  constructor(capacity: number) {
    this.links = new Int32Array(capacity + 1);
    this.keys = new Float64Array(capacity + 1);
  }

  /** The smallest key; Infinity where there is none. */
  least(): number {
    return this.count > 0 ? this.keys[0]! : Infinity;
  }

  push(link: number, key: number): void {
    let place = this.count++;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if (this.keys[parent]! <= key) break;
      this.set(place, this.links[parent]!, this.keys[parent]!);
      place = parent;
    }
    this.set(place, link, key);
  }

  /** The link with the smallest key; -1 where there is none. */
  pop(): number {
    if (this.count === 0) return -1;
    const first = this.links[0]!;
    const last = --this.count;
    const [link, key] = [this.links[last]!, this.keys[last]!];
    let place = 0;
    for (let child = 1; child < last; child = 2 * place + 1) {
      if (child + 1 < last && this.keys[child + 1]! < this.keys[child]!) child++;
      if (this.keys[child]! >= key) break;
      this.set(place, this.links[child]!, this.keys[child]!);
      place = child;
    }
    if (last > 0) this.set(place, link, key);
    return first;
  }

  private set(place: number, link: number, key: number): void {
    this.links[place] = link;
    this.keys[place] = key;
  }
}
