import { UserError } from '../errors.js';
import { FairRates } from './fair-rates.js';
import type { Flows } from './flows.js';

/** Ends this close, relative to the time, are one event unless a coarser resolution is asked for: roundings of 2⁻⁵³ summed up. */
const SAME_TIME = 1e-12;

export interface FlowTimes {
  /** [F] seconds at which the flow's first byte arrives. */
  begin: Float64Array;
  /** [F] seconds at which its last byte does. */
  end: Float64Array;
  /** Seconds until all is done. */
  seconds: number;
  /** Times at which rates changed. */
  events: number;
  /** [F] bytes that flows under way have left; only where the run was stopped. */
  left?: Float64Array;
}

export interface FlowOptions {
  /** Called now and then with the number of flows that have ended. */
  progress?: (done: number) => void;
  /**
   * Ends within this share of the time count as one, which is an approximation: every end is early by at most that
   * share. Exact where it is not given.
   */
  resolution?: number;
  /** Stop here, seconds; flows may have begun or not, and `end` of those that have not ended is NaN. */
  until?: number;
  /** Gives the flow a name in messages. */
  nameOf?: (flow: number) => string;
}

/**
 * Runs flows that share links max-min fairly. A flow begins at its start or, with predecessors, that long after the last of them has
 * ended; its bytes flow after its latency; it ends when all have. Rates are exact at every moment: they
 * change only when a flow begins or ends, and are levelled anew then.
 * @throws UserError where flows never end: a link without capacity, or predecessors in a circle
 */
export function runFlows(flows: Flows, options: FlowOptions = {}): FlowTimes {
  return new FlowRun(flows, options).run();
}

class FlowRun {
  private readonly rates: FairRates;
  private readonly agenda: Agenda;
  private readonly begin: Float64Array;
  private readonly end: Float64Array;
  /** [F] predecessors that have not ended. */
  private readonly waiting: Int32Array;
  /** Flows that wait for each flow. */
  private readonly followers: { offsets: Int32Array; flows: Int32Array } | null;
  private active = 0;
  private done = 0;
  private events = 0;

  constructor(
    private readonly flows: Flows,
    private readonly options: FlowOptions,
  ) {
    this.rates = new FairRates(flows);
    this.agenda = new Agenda(flows.count);
    this.begin = new Float64Array(flows.count).fill(Number.NaN);
    this.end = new Float64Array(flows.count).fill(Number.NaN);
    this.waiting = new Int32Array(flows.count);
    this.followers = invert(flows);
    for (let flow = 0; flow < flows.count; flow++) {
      if (flows.after) this.waiting[flow] = flows.after.offsets[flow + 1]! - flows.after.offsets[flow]!;
      if (this.waiting[flow] === 0) this.schedule(flow, 0);
    }
  }

  run(): FlowTimes {
    let seconds = 0;
    const { until } = this.options;
    for (;;) {
      const now = Math.min(this.agenda.next(), this.nextEnd());
      if (now === Infinity || now > (until ?? Infinity)) break;
      seconds = Math.max(seconds, this.advance(now));
      this.events++;
      if (this.options.progress && this.events % 256 === 0) this.options.progress(this.done);
    }
    const times = { begin: this.begin, end: this.end, seconds, events: this.events };
    if (until !== undefined) return { ...times, left: this.left(until) };
    if (this.done < this.flows.count) throw this.stuck();
    return times;
  }

  private left(now: number): Float64Array {
    const { state } = this.rates;
    return this.flows.bytes.map((_, flow) => {
      const weight = this.flows.weights ? this.flows.weights[flow]! : 1;
      return state.bottleneck[flow]! < 0 ? 0 : weight * state.remaining(flow, now);
    });
  }

  private nextEnd(): number {
    const { saturated, saturatedCount, state } = this.rates;
    const { nextEnd } = state;
    let least = Infinity;
    for (let i = 0; i < saturatedCount; i++) {
      const end = nextEnd[saturated[i]!]!;
      if (end < least) least = end;
    }
    return least;
  }

  /** Ends and begins what is due. @returns the time of the last end, or 0 */
  private advance(now: number): number {
    const until = now * (1 + Math.max(SAME_TIME, this.options.resolution ?? 0));
    const ended = this.active > 0 ? this.endedBy(until) : [];
    let last = ended.length > 0 ? now : 0;
    for (const flow of ended) this.finish(flow, now);
    const begun: number[] = [];
    for (let flow = this.agenda.take(until); flow >= 0; flow = this.agenda.take(until)) {
      this.begin[flow] = now;
      if (this.flows.bytes[flow] === 0 || this.flows.offsets[flow] === this.flows.offsets[flow + 1]) {
        this.finish(flow, now);
        last = now;
      } else begun.push(flow);
    }
    this.apply(ended, begun, now);
    return last;
  }

  /** Few changes are levelled from the lowest link that they touch; where that takes longer, all from nothing. */
  private apply(ended: readonly number[], begun: readonly number[], now: number): void {
    const changes = ended.length + begun.length;
    if (changes === 0) return;
    const { rates, flows } = this;
    const remaining = (flow: number) => flows.bytes[flow]! / (flows.weights ? flows.weights[flow]! : 1);
    this.active += begun.length - ended.length;
    if (changes * (256 + rates.saturatedCount) > 32 * (this.active + changes) + rates.state.linkCount) {
      const { state } = rates;
      const left = new Int32Array(this.active);
      let count = 0;
      for (const flow of ended) state.bottleneck[flow] = -1;
      for (let flow = 0; flow < flows.count; flow++) {
        if (state.bottleneck[flow]! < 0) continue;
        state.endsAt[flow] = state.remaining(flow, now);
        left[count++] = flow;
      }
      for (const flow of begun) {
        state.endsAt[flow] = remaining(flow);
        left[count++] = flow;
      }
      rates.rebuild(left, now);
      return;
    }
    for (const flow of ended) rates.remove(flow, now);
    for (const flow of begun) rates.insert(flow, remaining(flow), now);
    rates.settle(now);
  }

  /** Flows under way that have sent all by `until`. */
  private endedBy(until: number): number[] {
    const { saturated, saturatedCount, state } = this.rates;
    const found: number[] = [];
    for (let i = 0; i < saturatedCount; i++) {
      const link = saturated[i]!;
      if (state.nextEnd[link]! > until) continue;
      const sent = state.served[link]! + state.level[link]! * (until - state.since[link]!);
      // Down the heap, as far as flows have ended; at least the one that made the event.
      const places = [0];
      for (let place = places.pop(); place !== undefined; place = places.pop()) {
        if (place >= state.ownCount[link]!) continue;
        const flow = state.heap[state.base[link]! + place]!;
        if (place > 0 && state.endsAt[flow]! > sent) continue;
        found.push(flow);
        places.push(2 * place + 1, 2 * place + 2);
      }
    }
    return found;
  }

  private finish(flow: number, now: number): void {
    this.end[flow] = now;
    this.done++;
    if (!this.followers) return;
    const { offsets, flows } = this.followers;
    for (let i = offsets[flow]!; i < offsets[flow + 1]!; i++) {
      if (--this.waiting[flows[i]!]! === 0) this.schedule(flows[i]!, now);
    }
  }

  private schedule(flow: number, now: number): void {
    this.agenda.add(now + this.flows.start[flow]! + this.flows.latency[flow]!, flow);
  }

  private stuck(): UserError {
    const flow = this.end.findIndex(Number.isNaN);
    const name = this.options.nameOf?.(flow) ?? `flow ${flow}`;
    if (!Number.isNaN(this.begin[flow]!)) {
      return new UserError(
        `${name} never ends: a link on its way has no capacity left; give it a rate or repair it`,
      );
    }
    return new UserError(`${name} never begins: ${this.chain(flow)}`);
  }

  /** What a flow waits for, and that in turn, until the circle closes. */
  private chain(flow: number): string {
    const { offsets, flows } = this.flows.after!;
    const name = (one: number) => this.options.nameOf?.(one) ?? `flow ${one}`;
    const seen = [flow];
    for (;;) {
      const last = seen.at(-1)!;
      const before = flows.subarray(offsets[last]!, offsets[last + 1]!);
      const next = before.find((one) => Number.isNaN(this.end[one]!))!;
      const waits = seen
        .slice(1)
        .map((one) => `${name(one)}, which waits for `)
        .join('');
      if (seen.includes(next))
        return `it waits for ${waits}${name(next)} in turn; break the circle of "after"`;
      if (!Number.isNaN(this.begin[next]!)) return `it waits for ${waits}${name(next)}, which never ends`;
      if (seen.length === 8) return `it waits for ${waits}${name(next)}, and so on`;
      seen.push(next);
    }
  }
}

function invert({ after, count }: Flows): { offsets: Int32Array; flows: Int32Array } | null {
  if (!after) return null;
  const offsets = new Int32Array(count + 1);
  for (const before of after.flows) offsets[before + 1]!++;
  for (let flow = 0; flow < count; flow++) offsets[flow + 1]! += offsets[flow]!;
  const next = offsets.slice();
  const flows = new Int32Array(after.flows.length);
  for (let flow = 0; flow < count; flow++) {
    for (let i = after.offsets[flow]!; i < after.offsets[flow + 1]!; i++)
      flows[next[after.flows[i]!]!++] = flow;
  }
  return { offsets, flows };
}

/** Flows to begin, by time; those of one moment form a chain, as moments are often far fewer than flows. */
class Agenda {
  private readonly times: number[] = [];
  private readonly chains = new Map<number, number>();
  private readonly following: Int32Array;

  constructor(count: number) {
    this.following = new Int32Array(count).fill(-1);
  }

  next(): number {
    return this.times[0] ?? Infinity;
  }

  add(time: number, flow: number): void {
    const first = this.chains.get(time);
    this.following[flow] = first ?? -1;
    this.chains.set(time, flow);
    if (first === undefined) this.push(time);
  }

  /** A flow due by `until`, each once; -1 where there is none. */
  take(until: number): number {
    const time = this.next();
    if (time > until) return -1;
    const flow = this.chains.get(time)!;
    const following = this.following[flow]!;
    if (following >= 0) this.chains.set(time, following);
    else {
      this.chains.delete(time);
      this.pop();
    }
    return flow;
  }

  private push(time: number): void {
    const { times } = this;
    let place = times.push(time) - 1;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if (times[parent]! <= time) break;
      times[place] = times[parent]!;
      place = parent;
    }
    times[place] = time;
  }

  private pop(): void {
    const { times } = this;
    const last = times.pop()!;
    if (times.length === 0) return;
    let place = 0;
    for (let child = 1; child < times.length; child = 2 * place + 1) {
      if (child + 1 < times.length && times[child + 1]! < times[child]!) child++;
      if (times[child]! >= last) break;
      times[place] = times[child]!;
      place = child;
    }
    times[place] = last;
  }
}
