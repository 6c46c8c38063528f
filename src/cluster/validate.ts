/** Properties that a network claims, checked on the graph itself. */
import { planesOf, type Topology } from '../spec/network.js';
import { STORAGE_PLANE } from './build.js';
import { degreeOf, FABRIC_CABLE, headOf, type Network, NIC, nameOf, SWITCH, verticesOf } from './graph.js';
import { maxFlow } from './max-flow.js';

export interface Check {
  name: 'radix' | 'connectivity' | 'plane isolation' | 'bisection';
  holds: boolean;
  /** What was found, for people. */
  finding: string;
}

/** Facts about a network that cost or comparison need. */
export interface Validation {
  checks: Check[];
  /** Most ports in use on a switch. */
  portsInUse: number;
  /** Switches on the longest of all shortest ways between two switches of a plane that hold endpoints. */
  switchDiameter: number;
  /** Between the first and the last half of the NICs, bytes per second each way; an upper bound of the bisection. */
  bisectionBytesPerSecond: number;
  /** The same over what half the NICs can send; 1 is full. */
  bisectionShare: number;
}

/** Counts ports, walks the graph, and cuts it in halves. @param topology what the network was built from */
export function validate(network: Network, topology: Topology): Validation {
  const planes = planesOf(topology);
  const portsInUse = mostPorts(network);
  const components = switchComponents(network);
  const bisection = halve(network);
  return {
    checks: [
      checkRadix(network, topology.radix, portsInUse),
      checkConnectivity(network),
      checkPlanes(network, components, planes),
      {
        name: 'bisection',
        holds: bisection.share > 0,
        finding: `${(100 * bisection.share).toFixed(1)} % of what half the NICs send passes between the first and the last half; a bound from above, met by fat-trees`,
      },
    ],
    portsInUse,
    switchDiameter: switchDiameter(network),
    bisectionBytesPerSecond: bisection.bytesPerSecond,
    bisectionShare: bisection.share,
  };
}

function mostPorts(network: Network): number {
  return verticesOf(network, SWITCH).reduce((most, v) => Math.max(most, degreeOf(network, v)), 0);
}

function checkRadix(network: Network, radix: number, most: number): Check {
  const over = verticesOf(network, SWITCH).find((v) => degreeOf(network, v) > radix);
  const finding =
    over === undefined
      ? `no switch uses more than ${most} of ${radix} ports`
      : `${nameOf(network, over)} uses ${degreeOf(network, over)} ports of ${radix}`;
  return { name: 'radix', holds: over === undefined, finding };
}

/** Every vertex is reached from the first over cables of all kinds; rails without nodes are joined by nothing. */
function checkConnectivity(network: Network): Check {
  const component = componentsOf(network, () => true);
  const count = new Set(component).size;
  const bare = network.kind[network.endpoints[0]!] === NIC;
  const planes = new Set(network.plane).size;
  const holds = count === 1 || (bare && count === planes);
  const finding =
    count === 1 ? 'all is reached from everywhere' : `${count} parts that do not reach each other`;
  return { name: 'connectivity', holds, finding };
}

/** Each plane's switches are joined, and no two planes are. */
function checkPlanes(network: Network, component: Int32Array, planes: number): Check {
  const planeOf = new Map<number, number>();
  let mixed: number | undefined;
  const wholes = new Map<number, Set<number>>();
  for (const v of verticesOf(network, SWITCH)) {
    const [plane, part] = [network.plane[v]!, component[v]!];
    if ((planeOf.get(part) ?? plane) !== plane) mixed ??= v;
    planeOf.set(part, plane);
    if (!wholes.has(plane)) wholes.set(plane, new Set());
    wholes.get(plane)!.add(part);
  }
  const broken = [...wholes].find(([, parts]) => parts.size > 1);
  const own = [...wholes.keys()].filter((plane) => plane !== STORAGE_PLANE).length;
  const finding = mixed
    ? `${nameOf(network, mixed)} is joined to another plane by cables`
    : broken
      ? `plane ${broken[0]} falls into ${broken[1].size} parts`
      : own === 1
        ? 'one plane, in one piece'
        : `${own} planes, each in one piece, no cable between them`;
  return { name: 'plane isolation', holds: mixed === undefined && !broken && own === planes, finding };
}

/** [V] the part of the switch graph that each vertex is in; NICs and GPUs are parts of their own. */
const switchComponents = (network: Network): Int32Array =>
  componentsOf(network, (cable) => network.cableKind[cable] === FABRIC_CABLE);

/** [V] the smallest vertex reached over the cables that `passes` lets through. */
function componentsOf(network: Network, passes: (cable: number) => boolean): Int32Array {
  const component = new Int32Array(network.vertexCount).fill(-1);
  const queue = new Int32Array(network.vertexCount);
  for (let start = 0; start < network.vertexCount; start++) {
    if (component[start]! >= 0) continue;
    component[start] = start;
    let [head, tail] = [0, 0];
    queue[tail++] = start;
    while (head < tail) {
      const v = queue[head++]!;
      for (let i = network.offsets[v]!; i < network.offsets[v + 1]!; i++) {
        const channel = network.outgoing[i]!;
        const next = headOf(network, channel);
        if (component[next]! >= 0 || !passes(channel >> 1)) continue;
        component[next] = start;
        queue[tail++] = next;
      }
    }
  }
  return component;
}

/** Switches on the longest shortest way; from one switch of each group where there are many, as groups are alike. */
function switchDiameter(network: Network): number {
  const edge = verticesOf(network, SWITCH).filter((v) => network.layer[v] === 0);
  const starts =
    edge.length <= MOST_STARTS ? edge : edge.filter((_, i) => i % Math.ceil(edge.length / MOST_STARTS) === 0);
  const ends = new Set(edge);
  let longest = 0;
  for (const start of starts) {
    const distance = switchDistances(network, start);
    for (const v of ends) longest = Math.max(longest, distance[v]! + 1);
  }
  return longest;
}

const MOST_STARTS = 256;

/** [V] cables between switches on the shortest way from `start`; -1 where there is none. */
export function switchDistances(network: Network, start: number): Int32Array {
  const distance = new Int32Array(network.vertexCount).fill(-1);
  const queue = [start];
  distance[start] = 0;
  for (let head = 0; head < queue.length; head++) {
    const v = queue[head]!;
    for (let i = network.offsets[v]!; i < network.offsets[v + 1]!; i++) {
      const channel = network.outgoing[i]!;
      const next = headOf(network, channel);
      if (network.kind[next] !== SWITCH || distance[next]! >= 0) continue;
      distance[next] = distance[v]! + 1;
      queue.push(next);
    }
  }
  return distance;
}

/**
 * The largest flow from the first half of the NICs to the last, plane by plane in endpoint order: the worst of natural cuts
 * of a fat-tree, and an upper bound of the least cut of any other graph.
 */
function halve(network: Network): { bytesPerSecond: number; share: number } {
  let [through, offered] = [0, 0];
  const planes = new Set([...network.nics].map((nic) => network.plane[nic]!));
  for (const plane of planes) {
    const nics = [...network.nics].filter((nic) => network.plane[nic] === plane);
    const half = Math.floor(nics.length / 2);
    if (half === 0) continue;
    const { flow, supply } = maxFlow(network, nics.slice(0, half), nics.slice(half));
    through += flow;
    offered += supply;
  }
  return { bytesPerSecond: through, share: offered === 0 ? 1 : through / offered };
}
