import type { Flows } from './flows.js';

/**
 * Max-min fair rates of the flows that are under way, as levels of links. A saturated link has a level; a flow's rate is its
 * weight times the lowest level on its path, and the link that has it is the flow's bottleneck. So rates are never stored:
 * when a level moves, all flows of that bottleneck move with it, and so does V, the level's integral over time, which
 * tells when each of them will have sent its bytes.
 *
 * Of a link's flows, those whose bottleneck it is ("own") lie in a heap by their end, the others ("foreign") in a list with
 * their bottlenecks beside them, so that the level, (capacity - what foreign flows take) / weight of own flows, is one pass
 * over contiguous numbers.
 */
export class FairState {
  readonly linkCount: number;
  /** [F] the flow's bottleneck; -1 where it is not under way. */
  readonly bottleneck: Int32Array;
  /** [F] value of the bottleneck's V at which the flow has sent all. */
  readonly endsAt: Float64Array;
  /** [L] Infinity where the link is not saturated. */
  readonly level: Float64Array;
  /** [L] coefficients of own flows, summed. */
  readonly ownWeight: Float64Array;
  /** [L] integral of the level up to `since`. */
  readonly served: Float64Array;
  readonly since: Float64Array;
  /** [L] when the first own flow ends; Infinity without one. */
  readonly nextEnd: Float64Array;

  /** [L + 1] begin of each link's part of the [P] arrays below. */
  readonly base: Int32Array;
  readonly ownCount: Int32Array;
  readonly foreignCount: Int32Array;
  /** [P] own flows of a link, as a heap by `endsAt`. */
  readonly heap: Int32Array;
  /** [F] place in that heap. */
  readonly heapPlace: Int32Array;
  /** [P] foreign flows of a link, their bottlenecks, their coefficients (null where all are 1). */
  readonly foreign: Int32Array;
  readonly foreignBottleneck: Int32Array;
  readonly foreignWeight: Float64Array | null;
  /** [P], by path entry: place among the foreign flows of that link. */
  readonly foreignPlace: Int32Array;
  /** [P] share times weight; null where all are 1. */
  readonly coefficient: Float64Array | null;

  constructor(readonly flows: Flows) {
    const links = flows.capacity.length;
    const entries = flows.links.length;
    this.linkCount = links;
    this.bottleneck = new Int32Array(flows.count).fill(-1);
    this.endsAt = new Float64Array(flows.count);
    this.level = new Float64Array(links).fill(Infinity);
    this.ownWeight = new Float64Array(links);
    this.served = new Float64Array(links);
    this.since = new Float64Array(links);
    this.nextEnd = new Float64Array(links).fill(Infinity);
    this.base = rowsOf(flows);
    this.ownCount = new Int32Array(links);
    this.foreignCount = new Int32Array(links);
    this.heap = new Int32Array(entries);
    this.heapPlace = new Int32Array(flows.count);
    this.foreign = new Int32Array(entries);
    this.foreignBottleneck = new Int32Array(entries);
    this.foreignPlace = new Int32Array(entries);
    this.coefficient = coefficientsOf(flows);
    this.foreignWeight = this.coefficient && new Float64Array(entries);
  }

  /** Coefficient of a path entry. */
  weightOf(entry: number): number {
    return this.coefficient ? this.coefficient[entry]! : 1;
  }

  /** What a flow still has to send, over its weight. */
  remaining(flow: number, now: number): number {
    const link = this.bottleneck[flow]!;
    const sent = this.served[link]! + this.level[link]! * (now - this.since[link]!);
    return Math.max(0, this.endsAt[flow]! - sent);
  }

  /** Brings the integral of a link's level up to `now`, before its level changes. */
  serve(link: number, now: number): void {
    const level = this.level[link]!;
    if (level !== Infinity) this.served[link]! += level * (now - this.since[link]!);
    this.since[link] = now;
  }

  /** Sets `nextEnd` of a link whose integral is up to `now`. */
  foresee(link: number, now: number): void {
    if (this.ownCount[link] === 0) {
      this.nextEnd[link] = Infinity;
      return;
    }
    const first = this.endsAt[this.heap[this.base[link]!]!]! - this.served[link]!;
    this.nextEnd[link] = first <= 0 ? now : now + first / this.level[link]!;
  }

  /** Adds a flow to the own flows of a link and to the foreign ones of the others on its path. */
  insert(flow: number, link: number, remaining: number): void {
    const { offsets, links } = this.flows;
    this.bottleneck[flow] = link;
    this.endsAt[flow] = this.served[link]! + remaining;
    for (let entry = offsets[flow]!; entry < offsets[flow + 1]!; entry++) {
      if (links[entry] === link) this.addOwn(link, flow, this.weightOf(entry));
      else this.addForeign(links[entry]!, entry, flow, link);
    }
  }

  /** Takes a flow off all links of its path. */
  remove(flow: number): void {
    const { offsets, links } = this.flows;
    const own = this.bottleneck[flow]!;
    for (let entry = offsets[flow]!; entry < offsets[flow + 1]!; entry++) {
      if (links[entry] === own) this.removeOwn(own, flow, this.weightOf(entry));
      else this.removeForeign(links[entry]!, entry);
    }
    this.bottleneck[flow] = -1;
  }

  /** Makes `link` the bottleneck of a flow under way. Both links' integrals must be up to `now`. */
  move(flow: number, link: number, now: number): void {
    const { offsets, links } = this.flows;
    const from = this.bottleneck[flow]!;
    const remaining = this.remaining(flow, now);
    for (let entry = offsets[flow]!; entry < offsets[flow + 1]!; entry++) {
      const other = links[entry]!;
      if (other === link) {
        this.removeForeign(link, entry);
      } else if (other === from) {
        this.removeOwn(from, flow, this.weightOf(entry));
        this.addForeign(from, entry, flow, link);
      } else {
        this.foreignBottleneck[this.base[other]! + this.foreignPlace[entry]!] = link;
      }
    }
    this.bottleneck[flow] = link;
    this.endsAt[flow] = this.served[link]! + remaining;
    this.addOwn(link, flow, this.weightOf(this.entryOf(flow, link)));
  }

  /** The path entry at which a flow crosses a link. */
  entryOf(flow: number, link: number): number {
    let entry = this.flows.offsets[flow]!;
    while (this.flows.links[entry] !== link) entry++;
    return entry;
  }

  addForeign(link: number, entry: number, flow: number, bottleneck: number): void {
    const place = this.foreignCount[link]!++;
    const at = this.base[link]! + place;
    this.foreign[at] = flow;
    this.foreignBottleneck[at] = bottleneck;
    if (this.foreignWeight) this.foreignWeight[at] = this.coefficient![entry]!;
    this.foreignPlace[entry] = place;
  }

  private removeForeign(link: number, entry: number): void {
    const place = this.foreignPlace[entry]!;
    const last = --this.foreignCount[link]!;
    if (place === last) return;
    const [at, from] = [this.base[link]! + place, this.base[link]! + last];
    const moved = this.foreign[from]!;
    this.foreign[at] = moved;
    this.foreignBottleneck[at] = this.foreignBottleneck[from]!;
    if (this.foreignWeight) this.foreignWeight[at] = this.foreignWeight[from]!;
    this.foreignPlace[this.entryOf(moved, link)] = place;
  }

  private addOwn(link: number, flow: number, weight: number): void {
    this.ownWeight[link]! += weight;
    const place = this.ownCount[link]!++;
    this.heap[this.base[link]! + place] = flow;
    this.heapPlace[flow] = place;
    this.siftUp(link, place);
  }

  private removeOwn(link: number, flow: number, weight: number): void {
    const place = this.heapPlace[flow]!;
    const last = --this.ownCount[link]!;
    // Exactly nothing is left of the weights when no flow is.
    this.ownWeight[link] = last === 0 ? 0 : this.ownWeight[link]! - weight;
    if (place === last) return;
    const moved = this.heap[this.base[link]! + last]!;
    this.heap[this.base[link]! + place] = moved;
    this.heapPlace[moved] = place;
    this.siftDown(link, place);
    this.siftUp(link, place);
  }

  /** Appends to a link's own flows without order; `order` must follow. */
  appendOwn(link: number, flow: number, weight: number): void {
    this.ownWeight[link]! += weight;
    const place = this.ownCount[link]!++;
    this.heap[this.base[link]! + place] = flow;
    this.heapPlace[flow] = place;
  }

  /** Makes a heap of a link's own flows. */
  order(link: number): void {
    for (let place = (this.ownCount[link]! >> 1) - 1; place >= 0; place--) this.siftDown(link, place);
  }

  private siftUp(link: number, from: number): void {
    const { heap, heapPlace, endsAt } = this;
    const base = this.base[link]!;
    const flow = heap[base + from]!;
    const key = endsAt[flow]!;
    let place = from;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      const above = heap[base + parent]!;
      if (endsAt[above]! <= key) break;
      heap[base + place] = above;
      heapPlace[above] = place;
      place = parent;
    }
    heap[base + place] = flow;
    heapPlace[flow] = place;
  }

  private siftDown(link: number, from: number): void {
    const { heap, heapPlace, endsAt } = this;
    const base = this.base[link]!;
    const count = this.ownCount[link]!;
    const flow = heap[base + from]!;
    const key = endsAt[flow]!;
    let place = from;
    for (let child = 2 * place + 1; child < count; child = 2 * place + 1) {
      if (child + 1 < count && endsAt[heap[base + child + 1]!]! < endsAt[heap[base + child]!]!) child++;
      const below = heap[base + child]!;
      if (endsAt[below]! >= key) break;
      heap[base + place] = below;
      heapPlace[below] = place;
      place = child;
    }
    heap[base + place] = flow;
    heapPlace[flow] = place;
  }
}

/** [L + 1] how many path entries each link has, summed up. */
function rowsOf({ links, capacity }: Flows): Int32Array {
  const base = new Int32Array(capacity.length + 1);
  for (let entry = 0; entry < links.length; entry++) base[links[entry]! + 1]!++;
  for (let link = 0; link < capacity.length; link++) base[link + 1]! += base[link]!;
  return base;
}

function coefficientsOf({ count, offsets, shares, weights }: Flows): Float64Array | null {
  if (!weights) return shares;
  const product = new Float64Array(offsets[count]!);
  for (let flow = 0; flow < count; flow++) {
    for (let entry = offsets[flow]!; entry < offsets[flow + 1]!; entry++) {
      product[entry] = weights[flow]! * (shares ? shares[entry]! : 1);
    }
  }
  return product;
}
