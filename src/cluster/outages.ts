/**
 * Faults that come and go while traffic runs. Time is cut where a part breaks or works again and, a rerouting delay later,
 * where routes change; between cuts the flow engine runs as ever. Flows whose way leads into a broken part stand still
 * until routes change, or until the part is repaired where there is no other way. Bytes that have arrived stay arrived.
 */
import { UserError } from '../errors.js';
import type { Fault } from '../spec/faults.js';
import type { Scenario } from '../spec/scenario.js';
import { brokenBy } from './faults.js';
import { type FlowTimes, runFlows } from './flow-engine.js';
import { FlowList, type Flows } from './flows.js';
import { headOf, type Network } from './graph.js';
import { type Route, Router } from './routing.js';
import type { Broken } from './switch-routes.js';
import type { Transfer } from './transfers.js';
import { capacities, routeOf } from './ways.js';

/** What happened at a time. */
export interface Moment {
  seconds: number;
  event: string;
  /** Flows that stand still from here on, until the next moment. */
  stalled: number;
}

export interface OutageTimes {
  times: FlowTimes;
  /** [C] bytes that passed each channel. */
  passed: Float64Array;
  moments: Moment[];
}

/** Whether some fault comes or goes while traffic runs. */
export const isTimed = ({ faults }: Pick<Scenario, 'faults'>): boolean =>
  faults.some(({ at, until }) => at !== undefined || until !== undefined);

/**
 * Runs transfers, of which `after` are numbers in the same list.
 * @param nameOf what a transfer is, for messages
 * @throws UserError where a flow never ends: it has no way, and no repair is to come
 */
export function runWithOutages(
  network: Network,
  scenario: Pick<Scenario, 'faults' | 'routing'>,
  transfers: readonly Transfer[],
  options: { resolution?: number; progress?: (done: number) => void; nameOf: (flow: number) => string },
): OutageTimes {
  const run = new OutageRun(network, scenario, transfers, options);
  const cuts = cutsOf(scenario);
  const moments: Moment[] = [];
  for (const [i, { seconds, event }] of cuts.entries()) {
    const stalled = run.reroute(seconds);
    moments.push({ seconds, event, stalled });
    if (run.advance(seconds, cuts[i + 1]?.seconds)) break;
  }
  return { times: run.times(), passed: run.passed, moments };
}

/** Times at which something changes, with what it is; the first is the beginning. */
function cutsOf({
  faults,
  routing,
}: Pick<Scenario, 'faults' | 'routing'>): { seconds: number; event: string }[] {
  const events = new Map<number, string[]>([[0, ['begin']]]);
  const add = (seconds: number, what: string) => events.set(seconds, [...(events.get(seconds) ?? []), what]);
  for (const { kind, index, at, until } of faults) {
    if (at !== undefined) {
      add(at, `${kind} ${index} breaks`);
      add(at + routing.reroutingSeconds, `routes avoid ${kind} ${index}`);
    }
    if (until === undefined) continue;
    add(until, `${kind} ${index} works again`);
    add(until + routing.reroutingSeconds, `routes use ${kind} ${index}`);
  }
  return [...events]
    .map(([seconds, what]) => ({ seconds, event: what.join(', ') }))
    .sort((a, b) => a.seconds - b.seconds);
}

class OutageRun {
  readonly passed: Float64Array;
  private readonly begin: Float64Array;
  private readonly end: Float64Array;
  private readonly left: Float64Array;
  private routes: (Route | UserError)[] = [];
  private known: string | undefined;
  private stalled = new Uint8Array(0);
  private events = 0;

  constructor(
    private readonly network: Network,
    private readonly scenario: Pick<Scenario, 'faults' | 'routing'>,
    private readonly transfers: readonly Transfer[],
    private readonly options: Parameters<typeof runWithOutages>[3],
  ) {
    this.passed = new Float64Array(2 * network.cableCount);
    this.begin = new Float64Array(transfers.length).fill(Number.NaN);
    this.end = new Float64Array(transfers.length).fill(Number.NaN);
    this.left = Float64Array.from(transfers, ({ bytes }) => bytes);
  }

  times(): FlowTimes {
    const seconds = this.end.reduce((most, end) => Math.max(most, end), 0);
    return { begin: this.begin, end: this.end, seconds, events: this.events };
  }

  /** Brings routes and standstills up to `now`. @returns flows that stand still */
  reroute(now: number): number {
    const { network, transfers } = this;
    const delay = this.scenario.routing.reroutingSeconds;
    const known = this.scenario.faults.filter(
      ({ at, until = Infinity }) => (at === undefined || at + delay <= now) && now < until + delay,
    );
    const key = JSON.stringify(known);
    if (key !== this.known) {
      this.known = key;
      const router = new Router(network, this.scenario.routing, brokenBy(network, known));
      this.routes = transfers.map((transfer) => tryRoute(router, transfer));
    }
    const broken = brokenBy(
      network,
      this.scenario.faults.filter((fault) => isBroken(fault, now)),
    );
    this.stalled = Uint8Array.from(this.routes, (route, f) =>
      Number.isNaN(this.end[f]!) && (route instanceof UserError || crosses(network, route, broken)) ? 1 : 0,
    );
    return this.stalled.reduce((sum, one) => sum + one, 0);
  }

  /** Runs from `now` until `then`. @returns whether all is done */
  advance(now: number, then: number | undefined): boolean {
    const open = [...this.transfers.keys()].filter((f) => Number.isNaN(this.end[f]!));
    if (then === undefined) this.demandWays(open);
    const flows = this.flowsOf(open, now);
    const { resolution, progress, nameOf } = this.options;
    const done = this.transfers.length - open.length;
    const result = runFlows(flows, {
      ...(resolution === undefined ? {} : { resolution }),
      ...(then === undefined ? {} : { until: then - now }),
      ...(progress ? { progress: (more: number) => progress(done + more) } : {}),
      nameOf: (flow) => nameOf(open[flow]!),
    });
    this.events += result.events;
    for (const [i, f] of open.entries()) this.record(f, i, result, now);
    return open.every((f) => !Number.isNaN(this.end[f]!));
  }

  private demandWays(open: readonly number[]): void {
    const cut = open.find((f) => this.routes[f] instanceof UserError);
    if (cut !== undefined) throw this.routes[cut];
  }

  private record(f: number, i: number, { begin, end, left }: FlowTimes, now: number): void {
    if (Number.isNaN(begin[i]!)) return;
    if (Number.isNaN(this.begin[f]!)) this.begin[f] = now + begin[i]!;
    const rest = Number.isNaN(end[i]!) ? left![i]! : 0;
    if (rest === 0 && !Number.isNaN(end[i]!)) this.end[f] = now + end[i]!;
    const route = this.routes[f] as Route;
    for (const [at, channel] of route.channels.entries()) {
      this.passed[channel]! += (this.left[f]! - rest) * (route.shares ? route.shares[at]! : 1);
    }
    this.left[f] = rest;
  }

  /** What is not done, with times counted from `now`. */
  private flowsOf(open: readonly number[], now: number): Flows {
    const number = new Map(open.map((f, i) => [f, i]));
    const list = new FlowList(capacities(this.network));
    for (const f of open) {
      const { weight = 1, cap, after = [] } = this.transfers[f]!;
      const route = this.routes[f]!;
      const still = this.stalled[f] === 1 || route instanceof UserError;
      const before = after.flatMap((other) => number.get(other) ?? []);
      list.add({
        path: still ? [] : route.channels,
        ...(still || !route.shares ? {} : { shares: route.shares }),
        bytes: this.left[f]!,
        weight,
        ...(cap === undefined ? {} : { cap }),
        ...this.wait(f, now, before, still ? Infinity : route.seconds),
        after: before,
      });
    }
    return list.build();
  }

  /** When a flow begins, from `now` or from the last of those that it still waits for. */
  private wait(f: number, now: number, before: readonly number[], latency: number) {
    const { start = 0, after = [] } = this.transfers[f]!;
    if (latency === Infinity) return { start: Infinity };
    if (!Number.isNaN(this.begin[f]!)) return { start: 0 };
    if (before.length > 0) return { start, latency };
    const ready = after.reduce((last, other) => Math.max(last, this.end[other]!), 0);
    return { start: Math.max(0, ready + start + latency - now) };
  }
}

function tryRoute(router: Router, transfer: Transfer): Route | UserError {
  try {
    return routeOf(router, transfer);
  } catch (error) {
    if (error instanceof UserError) return error;
    throw error;
  }
}

const isBroken = ({ at = 0, until = Infinity }: Fault, now: number): boolean => at <= now && now < until;

function crosses(network: Network, { channels }: Route, { vertices, cables }: Broken): boolean {
  return channels.some((c) => cables.has(c >> 1) || vertices.has(headOf(network, c)));
}
