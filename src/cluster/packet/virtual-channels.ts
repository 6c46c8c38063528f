import { UserError } from '../../errors.js';
import type { PacketSpec } from '../../spec/packet.js';
import type { RoutingSpec } from '../../spec/scenario.js';
import { FABRIC_CABLE, GPU, headOf, type Network, NIC, SWITCH, tailOf, verticesOf } from '../graph.js';
import type { SwitchRoutes } from '../switch-routes.js';
import { DETOUR, END, type Journeys, targetOf } from './journeys.js';

/** Lanes of a port: data virtual lanes of InfiniBand [InfiniBand Architecture Specification, volume 1, §7.6], priorities of Ethernet [IEEE 802.1Qbb]. */
const MOST_LANES = { credits: 15, pfc: 8 };

/** @throws UserError where a port has not as many lanes as priorities and virtual channels ask for */
export function checkLanes(virtualChannels: number, priorities: number, { flowControl }: PacketSpec): void {
  const [lanes, most] = [virtualChannels * priorities, MOST_LANES[flowControl]];
  if (lanes <= most) return;
  throw new UserError(
    `${virtualChannels} virtual channels, which keep these ways free of deadlock, for each of ${priorities} priorit${priorities > 1 ? 'ies' : 'y'} are ${lanes} lanes, and a port with ${flowControl} has ${most}; take other routing or fewer priorities, or set packet.virtualChannels and see whether it locks`,
  );
}

/**
 * [C] an order of all channels. A packet takes the next virtual channel where its way goes down in this order, so that
 * within one virtual channel packets wait upwards only, and no circle of waiting can close [Dally and Seitz 1987]. Fat-trees need
 * one: their ways go up, then down, and the order is that of the layers. Rings need two: it falls at the cable that closes them.
 */
export function channelRanks(network: Network): Float64Array {
  const channels = 2 * network.cableCount;
  const layers = 2 + Math.max(0, ...verticesOf(network, SWITCH).map((v) => network.layer[v]!));
  return Float64Array.from({ length: channels }, (_, c) => {
    const [tail, head] = [tailOf(network, c), headOf(network, c)];
    if (network.cableKind[c >> 1] !== FABRIC_CABLE) return portRank(network, tail, head, layers, channels);
    const [from, to] = [network.layer[tail]!, network.layer[head]!];
    if (from < to) return (from + 1) * channels * 4;
    if (from > to) return (2 * layers - from) * channels * 4;
    // Cables of one layer: within groups, then between them, those that count up before those that count down.
    const between = network.group[tail] === network.group[head] ? 0 : 2 * channels;
    return (from + 0.5) * channels * 4 + between + (c & 1 ? 2 * channels - c : c);
  });
}

/** Out of nodes before the fabric, into them after it. */
function portRank(network: Network, tail: number, head: number, layers: number, channels: number): number {
  const [from, to] = [network.kind[tail]!, network.kind[head]!];
  if (to === SWITCH) return 2;
  if (from === SWITCH) return (2 * layers + 1) * channels * 4;
  if (to === NIC) return 1;
  if (from === NIC) return (2 * layers + 2) * channels * 4;
  return from === GPU ? 0 : 1;
}

/** Virtual channels that the ways need, by `channelRanks`. A GPU takes in whole packets, so that a packet begins anew there. */
export function channelsNeeded(
  network: Network,
  routing: RoutingSpec,
  journeys: Journeys,
  ranks: Float64Array,
  routes: SwitchRoutes,
): number {
  const open = routing.mode === 'spray' || routing.mode === 'valiant';
  return 1 + (open ? openFalls(network, journeys, routes) : pathFalls(network, journeys, ranks));
}

/** Most falls in rank on a way that is fixed. */
function pathFalls(network: Network, { path }: Journeys, ranks: Float64Array): number {
  let [most, falls, before] = [0, 0, -1];
  for (const entry of path) {
    if (entry !== END && before >= 0) {
      if (network.kind[tailOf(network, entry)] === GPU) falls = 0;
      else if (ranks[entry]! <= ranks[before]!) falls++;
      most = Math.max(most, falls);
    }
    if (entry === END) falls = 0;
    before = entry;
  }
  return most;
}

/**
 * Most falls on ways that packets choose: none on shortest ways of layered switches, one where a detour goes up again; elsewhere as many
 * as there are cables less one.
 */
function openFalls(network: Network, { path }: Journeys, routes: SwitchRoutes): number {
  const detours = path.includes(DETOUR);
  const switches = verticesOf(network, SWITCH);
  if (switches.some((v) => network.layer[v]! > 0)) return detours ? 1 : 0;
  const ends = new Set([...path].filter((entry) => entry < DETOUR).map(targetOf));
  const targets = detours ? switches : ends;
  let longest = 0;
  for (const target of targets)
    for (const v of switches) longest = Math.max(longest, routes.distance(v, target));
  return Math.max(0, (detours ? 2 : 1) * longest - 1);
}
