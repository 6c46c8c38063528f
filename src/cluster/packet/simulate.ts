import { UserError } from '../../errors.js';
import type { Scenario } from '../../spec/scenario.js';
import { buildNetwork } from '../build.js';
import { brokenBy } from '../faults.js';
import { headOf, type Network, tailOf } from '../graph.js';
import { isTimed } from '../outages.js';
import {
  linkUses,
  piecesOf,
  placesOf,
  type SimulationOptions,
  type SimulationResult,
  sharesOf,
  transferName,
  workloadOf,
} from '../simulate.js';
import { SwitchRoutes } from '../switch-routes.js';
import type { Transfer, Workload } from '../transfers.js';
import { runPackets } from './engine.js';
import { type Journeys, planJourneys } from './journeys.js';
import { channelName } from './ports.js';
import type { PacketFlows } from './sources.js';
import type { PacketStats } from './stats.js';
import { channelRanks, channelsNeeded, checkLanes } from './virtual-channels.js';

/** A simulation's outcome with what happened to its packets. */
export interface PacketResult extends SimulationResult {
  packets: PacketStats & {
    /** The port where most bytes waited, by its ends; empty where none did. */
    mostQueued: string;
    /** Traffic that waited longer than `starvationSeconds` at a port, a line each. */
    starved: string[];
  };
}

/**
 * Runs a scenario's workload packet by packet.
 * @throws UserError where it has none, where places in it do not exist, where faults cut the network, or where packets deadlock
 */
export function simulatePackets(
  scenario: Scenario,
  { network: given, progress, uses }: Pick<SimulationOptions, 'network' | 'progress' | 'uses'> = {},
): PacketResult {
  if (!scenario.workload)
    throw new UserError(`${scenario.name} has no workload; add a list of traffic under "workload"`);
  const network = given ?? buildNetwork(scenario.network);
  const workloads = scenario.workload.map((traffic) => workloadOf(traffic, placesOf(network, scenario)));
  checkForPackets(scenario, workloads);
  const { at, flows } = preparePackets(network, scenario, workloads);
  const nameOf = (flow: number) => transferName(workloads, flow);
  const times = runPackets(at, flows, {
    nameOf,
    ...(progress ? { progress: (done: number) => progress(done, flows.count) } : {}),
  });
  const { stats, seconds, events, passed } = times;
  uses?.(network, sharesOf(network, passed, seconds));
  return {
    name: scenario.name,
    endpoints: network.endpoints.length,
    seconds,
    flows: flows.count,
    events,
    pieces: piecesOf(workloads, times),
    links: linkUses(network, passed, seconds),
    packets: {
      ...stats,
      mostQueued: portName(network, stats.mostQueuedChannel),
      starved: starved(network, scenario, stats, nameOf),
    },
  };
}

/** What the flow engine alone can do. */
function checkForPackets(scenario: Scenario, workloads: readonly Workload[]): void {
  if (isTimed(scenario)) {
    throw new UserError(
      'field faults: packets know faults from the beginning only; leave "at" and "until" out, or run flows',
    );
  }
  if (workloads.some(({ transfers }) => transfers.some(({ tree }) => tree))) {
    throw new UserError('field workload.inFabric: switches copy and sum no packets here; run flows');
  }
}

/** Ways, virtual channels and flows of workloads: what `runPackets` takes. */
export function preparePackets(network: Network, scenario: Scenario, workloads: readonly Workload[]) {
  const { routing, packet: spec } = scenario;
  const broken = brokenBy(network, scenario.faults);
  const transfers = workloads.flatMap((workload) => workload.transfers);
  const journeys = planJourneys(network, routing, broken, transfers);
  const routes = new SwitchRoutes(network, broken);
  const ranks = channelRanks(network);
  const virtualChannels =
    spec.virtualChannels === 'auto'
      ? channelsNeeded(network, routing, journeys, ranks, routes)
      : spec.virtualChannels;
  const priorities = scenario.workload!.flatMap((traffic, i) =>
    new Array<number>(workloads[i]!.transfers.length).fill(traffic.priority),
  );
  const flows = packetFlows(workloads, transfers, priorities, journeys);
  checkLanes(virtualChannels, flows.priorityCount, spec);
  return { at: { network, routes, ranks, virtualChannels, spec }, flows };
}

function packetFlows(
  workloads: readonly Workload[],
  transfers: readonly Transfer[],
  given: readonly number[],
  journeys: Journeys,
): PacketFlows {
  const column = (value: (transfer: Transfer) => number) => Float64Array.from(transfers, value);
  const inUse = [...new Set(given)].sort((a, b) => b - a);
  const least = transfers.reduce((least, { weight = 1 }) => Math.min(least, weight), Infinity);
  return {
    count: transfers.length,
    bytes: column(({ bytes }) => Math.ceil(bytes)),
    start: column(({ start = 0 }) => start),
    after: predecessors(workloads),
    weights: transfers.some(({ weight = 1 }) => weight !== least)
      ? column(({ weight = 1 }) => weight / least)
      : null,
    caps: transfers.some(({ cap }) => cap !== undefined) ? column(({ cap = Infinity }) => cap) : null,
    priorities: Uint8Array.from(given, (priority) => inUse.indexOf(priority)),
    priorityCount: Math.max(1, inUse.length),
    journeys,
  };
}

function predecessors(workloads: readonly Workload[]): PacketFlows['after'] {
  const offsets = [0];
  const flows: number[] = [];
  let base = 0;
  for (const { transfers } of workloads) {
    for (const { after = [] } of transfers) {
      for (const other of after) flows.push(base + other);
      offsets.push(flows.length);
    }
    base += transfers.length;
  }
  return flows.length > 0 ? { offsets: Int32Array.from(offsets), flows: Int32Array.from(flows) } : null;
}

const portName = (network: Network, channel: number): string =>
  channel < 0 ? '' : channelName(network, tailOf(network, channel), headOf(network, channel));

function starved(
  network: Network,
  { packet }: Scenario,
  { waits }: PacketStats,
  nameOf: (flow: number) => string,
): string[] {
  return waits.flatMap(({ seconds, channel, flow }, k) =>
    seconds > packet.starvationSeconds
      ? [
          `a packet of ${nameOf(flow)} waited ${(seconds * 1e6).toFixed(1)} µs at ${portName(network, channel)}${k > 0 ? `, behind ${k} more urgent ${k > 1 ? 'priorities' : 'priority'}: give shares in packet.priorities` : ''}`,
        ]
      : [],
  );
}
