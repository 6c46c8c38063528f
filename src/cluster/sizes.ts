import type { NetworkInput } from '../spec/network.js';
import { ENDPOINT_CABLE, headOf, type Network, SWITCH, verticesOf } from './graph.js';
import { isSlimFlyOrder, slimFlyDegree, slimFlyEndpoints } from './slim-fly.js';

type Topology = NetworkInput['topology'];

/** The smallest network of each kind that holds so many endpoints; null where none of 64-port switches does. */
export function topologiesFor(endpoints: number): { name: string; topology: Topology | null }[] {
  return [
    { name: 'FT2', topology: endpoints <= 2048 ? { kind: 'fat-tree', endpoints } : null },
    { name: 'MPFT', topology: multiPlane(endpoints) },
    { name: 'FT3', topology: endpoints <= 65536 ? { kind: 'fat-tree', layers: 3, endpoints } : null },
    { name: 'SF', topology: slimFly(endpoints) },
    { name: 'DF', topology: dragonfly(endpoints) },
  ];
}

function multiPlane(endpoints: number): Topology | null {
  const fits = endpoints % 8 === 0 && endpoints <= 16384;
  return fits ? { kind: 'multi-plane-fat-tree', endpoints, planes: 8 } : null;
}

function slimFly(endpoints: number): Topology | null {
  for (let q = 3; q < 64; q++) {
    if (!isSlimFlyOrder(q)) continue;
    const perSwitch = slimFlyEndpoints({ q, radix: 64 });
    if (slimFlyDegree(q) + perSwitch > 64) return null;
    if (2 * q * q * perSwitch >= endpoints) return { kind: 'slim-fly', q };
  }
  return null;
}

/** Balanced, a = 2p = 2h, with as many groups as are filled. */
function dragonfly(endpoints: number): Topology | null {
  for (let h = 1; 4 * h - 1 <= 64; h++) {
    const [a, p] = [2 * h, h];
    if (a * p * (a * h + 1) < endpoints) continue;
    return { kind: 'dragonfly', p, a, h, groups: Math.max(2, Math.ceil(endpoints / (a * p))) };
  }
  return null;
}

/** Steps of the walk beyond which none is made, some seconds. */
const MOST_STEPS = 1e9;

/**
 * What each NIC gets in a uniform all-to-all when traffic is spread evenly over shortest ways, as a share of its port: the busiest
 * channel is full. One plane is walked, as the others are built alike. Null where there are more than `most` pairs of a switch and
 * a channel.
 */
export function uniformThroughput(network: Network, most = MOST_STEPS): number | null {
  const nicsOn = new Float64Array(network.vertexCount);
  const first = network.plane[headOf(network, firstPort(network))]!;
  let [nics, channels] = [0, 0];
  for (let e = 0; e < network.cableCount; e++) {
    const to = network.to[e]!;
    if (network.plane[to] !== first) continue;
    channels += 2;
    if (network.cableKind[e] !== ENDPOINT_CABLE) continue;
    nicsOn[to]!++;
    nics++;
  }
  const sources = verticesOf(network, SWITCH).filter((v) => nicsOn[v]! > 0);
  if (sources.length * channels > most) return null;
  // Every NIC sends 1 in all, in equal parts to the others of its plane; a NIC's own port carries 1.
  const load = new Float64Array(2 * network.cableCount);
  if (nics > 1) {
    for (const source of sources) spreadFrom(network, source, nicsOn, nicsOn[source]! / (nics - 1), load);
  }
  return 1 / load.reduce((busiest, x) => Math.max(busiest, x), 1);
}

/** The channel out of the first NIC. */
function firstPort(network: Network): number {
  const nic = network.nics[0]!;
  const channels = network.outgoing.subarray(network.offsets[nic]!, network.offsets[nic + 1]!);
  return channels.find((channel) => network.cableKind[channel >> 1] === ENDPOINT_CABLE)!;
}

/** Adds what NICs of one switch send to all others: from the farthest switches back, evenly over the channels that come closer. */
function spreadFrom(
  network: Network,
  source: number,
  nicsOn: Float64Array,
  each: number,
  load: Float64Array,
): void {
  const distance = new Int32Array(network.vertexCount).fill(-1);
  const order = [source];
  distance[source] = 0;
  for (let head = 0; head < order.length; head++) {
    const v = order[head]!;
    for (let i = network.offsets[v]!; i < network.offsets[v + 1]!; i++) {
      const next = headOf(network, network.outgoing[i]!);
      if (network.kind[next] !== SWITCH || distance[next]! >= 0) continue;
      distance[next] = distance[v]! + 1;
      order.push(next);
    }
  }
  const through = new Float64Array(network.vertexCount);
  for (let at = order.length - 1; at > 0; at--) {
    const v = order[at]!;
    const amount = through[v]! + nicsOn[v]! * each;
    if (amount === 0) continue;
    const back: number[] = [];
    for (let i = network.offsets[v]!; i < network.offsets[v + 1]!; i++) {
      const channel = network.outgoing[i]!;
      if (distance[headOf(network, channel)] === distance[v]! - 1) back.push(channel);
    }
    for (const channel of back) {
      load[channel ^ 1]! += amount / back.length;
      through[headOf(network, channel)]! += amount / back.length;
    }
  }
}
