import { UserError } from '../errors.js';
import type { Scenario, Traffic } from '../spec/scenario.js';
import { buildNetwork } from './build.js';
import { allToAll, collective, incast, permutation, pipeline } from './collectives.js';
import { expertTraffic } from './experts.js';
import { brokenBy } from './faults.js';
import { type FlowTimes, runFlows } from './flow-engine.js';
import { FlowList, type Flows } from './flows.js';
import { foldAllToAll } from './fold.js';
import { CABLE_KINDS, headOf, type Network, NVLINK, nameOf, tailOf } from './graph.js';
import { isTimed, type Moment, runWithOutages } from './outages.js';
import { Router } from './routing.js';
import type { Places, Transfer, Workload } from './transfers.js';
import { capacities, routeOf } from './ways.js';

/** What became of one piece of traffic. */
export interface PieceResult {
  name: string;
  flows: number;
  /** From the beginning until its last byte has arrived. */
  seconds: number;
  /** Bytes of a rank over seconds, and that times the kind's factor, as nccl-tests prints them. */
  algorithmBytesPerSecond: number;
  busBytesPerSecond: number;
  /** Times of single transfers, sorted: shortest, median, 99th of 100, longest. */
  flowSeconds: { least: number; median: number; p99: number; most: number };
}

/** How busy cables of one kind were. */
export interface LinkUse {
  kind: string;
  channels: number;
  /** Bytes over capacity times the whole time. */
  meanUse: number;
  mostUse: number;
  /** The busiest, by its ends. */
  busiest: string;
}

export interface SimulationResult {
  name: string;
  endpoints: number;
  seconds: number;
  flows: number;
  events: number;
  pieces: PieceResult[];
  links: LinkUse[];
  /** Faults and repairs at their times; only where there are some. */
  moments?: Moment[];
}

export interface SimulationOptions {
  /** A network that is built already. */
  network?: Network;
  resolution?: number;
  /** Run one flow for all that are alike, exactly; for a uniform all-to-all, see `foldAllToAll`. */
  fold?: boolean;
  progress?: (done: number, total: number) => void;
  /** Is shown how busy each channel was, [C] shares of its capacity over the whole time; not where flows are folded. */
  uses?: (network: Network, shares: Float64Array) => void;
}

/**
 * Runs a scenario's workload on the flow engine.
 * @throws UserError where it has none, where places in it do not exist or where faults cut the network
 */
export function simulate(scenario: Scenario, options: SimulationOptions = {}): SimulationResult {
  if (!scenario.workload)
    throw new UserError(`${scenario.name} has no workload; add a list of traffic under "workload"`);
  const network = options.network ?? buildNetwork(scenario.network);
  if (options.fold) return simulateFolded(scenario, network);
  const workloads = scenario.workload.map((traffic) => workloadOf(traffic, placesOf(network, scenario)));
  const ran = isTimed(scenario)
    ? runTimed(network, scenario, workloads, options)
    : runRouted(network, scenario, workloads, options);
  const { times, passed, moments } = ran;
  options.uses?.(network, sharesOf(network, passed, times.seconds));
  return {
    name: scenario.name,
    endpoints: network.endpoints.length,
    seconds: times.seconds,
    flows: times.end.length,
    events: times.events,
    pieces: piecesOf(workloads, times),
    links: linkUses(network, passed, times.seconds),
    ...(moments ? { moments } : {}),
  };
}

/** Times of flows, bytes by channel, and what happened on the way. */
interface Ran {
  times: FlowTimes;
  passed: Float64Array;
  moments?: Moment[];
}

function runRouted(
  network: Network,
  scenario: Scenario,
  workloads: readonly Workload[],
  { resolution, progress }: SimulationOptions,
): Ran {
  const flows = routeAll(network, scenario, workloads);
  const times = runFlows(flows, {
    ...(resolution === undefined ? {} : { resolution }),
    ...(progress ? { progress: (done: number) => progress(done, flows.count) } : {}),
    nameOf: (flow) => transferName(workloads, flow),
  });
  return { times, passed: bytesOf(network, flows) };
}

function runTimed(
  network: Network,
  scenario: Scenario,
  workloads: readonly Workload[],
  { resolution, progress }: SimulationOptions,
): Ran {
  const all: Transfer[] = [];
  for (const { transfers } of workloads) {
    const base = all.length;
    for (const transfer of transfers) {
      const { after } = transfer;
      all.push(after ? { ...transfer, after: after.map((other) => base + other) } : transfer);
    }
  }
  return runWithOutages(network, scenario, all, {
    ...(resolution === undefined ? {} : { resolution }),
    ...(progress ? { progress: (done: number) => progress(done, all.length) } : {}),
    nameOf: (flow) => transferName(workloads, flow),
  });
}

/** A uniform all-to-all as its classes of flows; how busy links were is not told. */
function simulateFolded(scenario: Scenario, network: Network): SimulationResult {
  const router = new Router(network, scenario.routing);
  const { flows, counts } = foldAllToAll(network, router, scenario);
  const times = runFlows(flows);
  const ranks = network.endpoints.length;
  const bytes = (scenario.workload![0] as Extract<Traffic, { kind: 'all-to-all' }>).bytes;
  const all = counts.reduce((sum, n) => sum + n, 0);
  const spans = [...times.end].map((end, f) => ({ span: end - times.begin[f]!, count: counts[f]! }));
  spans.sort((a, b) => a.span - b.span);
  const at = (share: number) => {
    let before = 0;
    for (const { span, count } of spans) {
      before += count;
      if (before > share * all) return span;
    }
    return spans.at(-1)!.span;
  };
  const piece: PieceResult = {
    name: `all-to-all over ${ranks}, folded into ${flows.count} classes of flows`,
    flows: all,
    seconds: times.seconds,
    algorithmBytesPerSecond: bytes / times.seconds,
    busBytesPerSecond: (bytes * (ranks - 1)) / ranks / times.seconds,
    flowSeconds: { least: at(0), median: at(0.5), p99: at(0.99), most: at(1) },
  };
  const { seconds, events } = times;
  return { name: scenario.name, endpoints: ranks, seconds, flows: all, events, pieces: [piece], links: [] };
}

/** What workloads need to know of a network. */
export function placesOf(network: Network, { routing }: Pick<Scenario, 'routing'>): Places {
  const { endpoints, gpusPerNode, nics } = network;
  const perNode = (nics.length * gpusPerNode) / endpoints.length;
  const nicOf = (endpoint: number) => {
    const [node, gpu] = [Math.floor(endpoint / gpusPerNode), endpoint % gpusPerNode];
    return nics[node * perNode + Math.floor((gpu * perNode) / gpusPerNode)]!;
  };
  return {
    endpoints: endpoints.length,
    gpusPerNode,
    railOf: (endpoint) => network.plane[nicOf(endpoint)]!,
    pxn: routing.pxn && new Set([...nics].map((nic) => network.plane[nic]!)).size > 1,
    relaySeconds: relaySeconds(network),
  };
}

/** From GPU to GPU of a node. */
function relaySeconds(network: Network): number {
  const cable = network.cableKind.indexOf(NVLINK);
  return cable < 0 ? 0 : 2 * network.cableSeconds[cable]!;
}

/** The transfers of a piece of traffic. */
export function workloadOf(traffic: Traffic, places: Places): Workload {
  switch (traffic.kind) {
    case 'all-to-all':
      return allToAll(traffic, places);
    case 'all-gather':
    case 'reduce-scatter':
    case 'all-reduce':
      return collective(traffic, places);
    case 'incast':
      return incast(traffic, places);
    case 'permutation':
      return permutation(traffic, places);
    case 'pipeline':
      return pipeline(traffic, places);
    case 'ep-dispatch':
    case 'ep-combine':
      return expertTraffic(traffic, places);
    case 'flows':
      return listed(traffic);
  }
}

function listed({ flows }: Extract<Traffic, { kind: 'flows' }>): Workload {
  for (const [i, { after }] of flows.entries()) {
    const unknown = after.find((other) => other >= flows.length);
    if (unknown !== undefined) {
      throw new UserError(
        `field workload.flows.${i}.after: there is no flow ${unknown}; the ${flows.length} are numbered from 0`,
      );
    }
  }
  const bytes = flows.reduce((sum, flow) => sum + flow.bytes, 0);
  return {
    name: `${flows.length} flows`,
    transfers: flows.map(({ capGBps, ...flow }, key) => ({
      ...flow,
      key,
      ...(capGBps === undefined ? {} : { cap: capGBps * 1e9 }),
    })),
    ranks: new Set(flows.map(({ from }) => from)).size,
    bytesPerRank: bytes,
    busFactor: 1,
  };
}

/** Gives every transfer its way, and so its links. */
export function routeAll(network: Network, scenario: Scenario, workloads: readonly Workload[]): Flows {
  const router = new Router(network, scenario.routing, brokenBy(network, scenario.faults));
  const list = new FlowList(capacities(network));
  for (const { transfers } of workloads) {
    const base = list.count;
    for (const transfer of transfers) {
      const { bytes, start, after, weight, cap } = transfer;
      const { channels, shares, seconds } = routeOf(router, transfer);
      list.add({
        path: channels,
        bytes,
        latency: seconds,
        ...(shares ? { shares } : {}),
        ...(start === undefined ? {} : { start }),
        ...(weight === undefined ? {} : { weight }),
        ...(cap === undefined ? {} : { cap }),
        ...(after ? { after: after.map((other) => base + other) } : {}),
      });
    }
  }
  return list.build();
}

/** What a flow is, for messages. */
export function transferName(workloads: readonly Workload[], flow: number): string {
  let index = flow;
  for (const { name, transfers } of workloads) {
    const found = transfers[index];
    if (found) return `transfer ${index} of ${name} (endpoint ${found.from} to ${found.to})`;
    index -= transfers.length;
  }
  return `flow ${flow}`;
}

/** What became of each piece of traffic, by the times of its flows. */
export function piecesOf(workloads: readonly Workload[], { begin, end }: FlowTimes): PieceResult[] {
  let base = 0;
  return workloads.map(({ name, transfers, bytesPerRank, busFactor }) => {
    const [from, to] = [base, base + transfers.length];
    base = to;
    const own = end.subarray(from, to);
    const seconds = own.reduce((most, time) => Math.max(most, time), 0);
    const spans = own.map((time, i) => time - begin[from + i]!).sort();
    const at = (share: number) => spans[Math.min(spans.length - 1, Math.floor(share * spans.length))] ?? 0;
    return {
      name,
      flows: transfers.length,
      seconds,
      algorithmBytesPerSecond: bytesPerRank / seconds,
      busBytesPerSecond: (bytesPerRank * busFactor) / seconds,
      flowSeconds: { least: at(0), median: at(0.5), p99: at(0.99), most: at(1) },
    };
  });
}

/** [C] bytes that passed each channel. */
export function bytesOf(network: Network, { count, offsets, links, shares, bytes }: Flows): Float64Array {
  const passed = new Float64Array(2 * network.cableCount);
  for (let flow = 0; flow < count; flow++) {
    for (let entry = offsets[flow]!; entry < offsets[flow + 1]!; entry++) {
      if (links[entry]! < passed.length)
        passed[links[entry]!]! += bytes[flow]! * (shares ? shares[entry]! : 1);
    }
  }
  return passed;
}

/** [C] what passed over what could have. */
export const sharesOf = (network: Network, passed: Float64Array, seconds: number): Float64Array =>
  passed.map((bytes, c) => (seconds > 0 ? bytes / (network.bytesPerSecond[c >> 1]! * seconds) : 0));

/** @param passed [C] bytes that passed each channel */
export function linkUses(network: Network, passed: Float64Array, seconds: number): LinkUse[] {
  const shares = sharesOf(network, passed, seconds);
  return CABLE_KINDS.flatMap((kind, k) => {
    let [channels, sum, most, busiest] = [0, 0, 0, -1];
    for (let c = 0; c < passed.length; c++) {
      if (network.cableKind[c >> 1] !== k) continue;
      const use = shares[c]!;
      channels++;
      sum += use;
      if (use > most || busiest < 0) [most, busiest] = [use, c];
    }
    if (channels === 0) return [];
    const ends = `${nameOf(network, tailOf(network, busiest))} to ${nameOf(network, headOf(network, busiest))}`;
    return [{ kind, channels, meanUse: sum / channels, mostUse: most, busiest: ends }];
  });
}
