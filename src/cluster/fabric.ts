/** Fabrics: switches, the cables among them, and the switch ports that NICs are plugged into. */
import { UserError } from '../errors.js';
import type { Topology } from '../spec/network.js';
import { wireDragonfly } from './dragonfly.js';
import { leafPorts, wireFatTree } from './fat-tree.js';
import { FABRIC_CABLE, type GraphBuilder, SWITCH } from './graph.js';
import { wireSlimFly } from './slim-fly.js';
import type { Wiring } from './wiring.js';

/** Where the NICs go. */
export interface Ports {
  /** [nics · portsPerNic] the switch of each port of each NIC. */
  switches: Int32Array;
  portsPerNic: number;
  /** The plane or rail of each NIC's first port. */
  planeOf(nic: number): number;
}

export const onePlane = (switches: ArrayLike<number>): Ports => ({
  switches: Int32Array.from(switches),
  portsPerNic: 1,
  planeOf: () => 0,
});

/**
 * Lays the switches of a topology and their cables.
 * @param seconds what a switch and a cable between switches take
 * @throws UserError where no network has these parameters
 */
export function wireFabric(
  builder: GraphBuilder,
  topology: Topology,
  cable: { bytesPerSecond: number; seconds: number },
  switchSeconds: number,
): Ports {
  const rate = cable.bytesPerSecond / portsOfNic(topology);
  return wire(wiringOf(builder, { ...cable, bytesPerSecond: rate }, switchSeconds), topology);
}

/** Switches and cables of one kind. */
export const wiringOf = (
  builder: GraphBuilder,
  cable: { bytesPerSecond: number; seconds: number },
  switchSeconds: number,
): Wiring => ({
  addSwitch: (fields) => builder.addVertex({ kind: SWITCH, seconds: switchSeconds, ...fields }),
  connect: (a, b, count = 1) => {
    for (let i = 0; i < count; i++) builder.addCable(a, b, { kind: FABRIC_CABLE, ...cable });
  },
});

/** Ports of a NIC, which share its rate; the switches behind them run at that rate too. */
export const portsOfNic = (topology: Topology): number =>
  topology.kind === 'multi-plane-fat-tree' && topology.multiPort ? topology.planes : 1;

function wire(wiring: Wiring, topology: Topology): Ports {
  switch (topology.kind) {
    case 'star':
      return wireStar(wiring, topology);
    case 'fat-tree':
      return onePlane(wireFatTree(wiring, topology, topology.endpoints, 0));
    case 'multi-rail-fat-tree':
      return wireRails(wiring, topology);
    case 'multi-plane-fat-tree':
      return wirePlanes(wiring, topology);
    case 'rail-only':
      return wireRailOnly(wiring, topology);
    case 'slim-fly':
      return onePlane(wireSlimFly(wiring, topology));
    case 'dragonfly':
      return onePlane(wireDragonfly(wiring, topology));
    case 'torus':
      return onePlane(wireTorus(wiring, topology));
    case 'graph':
      return onePlane(wireGraph(wiring, topology));
  }
}

type Of<Kind extends Topology['kind']> = Extract<Topology, { kind: Kind }>;

function wireStar(wiring: Wiring, { endpoints, radix }: Of<'star'>): Ports {
  if (endpoints > radix) {
    throw new UserError(
      `field topology.endpoints: one switch of ${radix} ports holds no ${endpoints} endpoints; give ${radix} or fewer, or a fat-tree`,
    );
  }
  return onePlane(new Int32Array(endpoints).fill(wiring.addSwitch({})));
}

/** NIC r of nodes that share a leaf position meets on leaf (group, r). */
function wireRails(wiring: Wiring, topology: Of<'multi-rail-fat-tree'>): Ports {
  const { endpoints, rails } = topology;
  divides('rails', rails, 'endpoints', endpoints);
  const { down } = leafPorts(topology);
  const groups = Math.ceil(endpoints / rails / down);
  const slots = wireFatTree(wiring, topology, groups * rails * down, 0);
  const slotOf = (nic: number) => {
    const [member, rail] = [Math.floor(nic / rails), nic % rails];
    return (Math.floor(member / down) * rails + rail) * down + (member % down);
  };
  const switches = Int32Array.from({ length: endpoints }, (_, nic) => slots[slotOf(nic)]!);
  return { switches, portsPerNic: 1, planeOf: (nic) => nic % rails };
}

function wirePlanes(wiring: Wiring, topology: Of<'multi-plane-fat-tree'>): Ports {
  const { endpoints, planes, multiPort } = topology;
  if (!multiPort) divides('planes', planes, 'endpoints', endpoints);
  const size = multiPort ? endpoints : endpoints / planes;
  const trees = Array.from({ length: planes }, (_, plane) => wireFatTree(wiring, topology, size, plane));
  if (!multiPort) {
    const switches = Int32Array.from(
      { length: endpoints },
      (_, nic) => trees[nic % planes]![Math.floor(nic / planes)]!,
    );
    return { switches, portsPerNic: 1, planeOf: (nic) => nic % planes };
  }
  const switches = Int32Array.from(
    { length: endpoints * planes },
    (_, port) => trees[port % planes]![Math.floor(port / planes)]!,
  );
  return { switches, portsPerNic: planes, planeOf: () => 0 };
}

function wireRailOnly(wiring: Wiring, { endpoints, rails, radix }: Of<'rail-only'>): Ports {
  divides('rails', rails, 'endpoints', endpoints);
  if (endpoints / rails > radix) {
    throw new UserError(
      `field topology.endpoints: a rail of one ${radix}-port switch holds ${radix} NICs, so ${rails} rails hold ${rails * radix}, not ${endpoints}; multi-plane-fat-tree has two layers a rail`,
    );
  }
  const tops = Array.from({ length: rails }, (_, plane) => wiring.addSwitch({ plane }));
  const switches = Int32Array.from({ length: endpoints }, (_, nic) => tops[nic % rails]!);
  return { switches, portsPerNic: 1, planeOf: (nic) => nic % rails };
}

function divides(name: string, divisor: number, what: string, value: number): void {
  if (value % divisor === 0) return;
  const below = value - (value % divisor);
  throw new UserError(
    `field topology.${name}: ${divisor} ${name} do not divide ${value} ${what}; the nearest numbers of ${what} are ${below || divisor} and ${below + divisor}`,
  );
}

function wireTorus(wiring: Wiring, { dimensions, endpointsPerSwitch, radix }: Of<'torus'>): Int32Array {
  const ports = 2 * dimensions.length + endpointsPerSwitch;
  if (ports > radix) {
    throw new UserError(
      `field topology.dimensions: a switch would need ${ports} ports and has ${radix}; give ${radix - 2 * dimensions.length} endpoints a switch or fewer`,
    );
  }
  const count = dimensions.reduce((product, size) => product * size, 1);
  const switches = Array.from({ length: count }, (_, i) => wiring.addSwitch({ group: i }));
  let stride = 1;
  for (const size of dimensions) {
    for (let i = 0; i < count; i++) {
      const position = Math.floor(i / stride) % size;
      const last = position === size - 1;
      wiring.connect(switches[i]!, switches[last ? i - position * stride : i + stride]!);
    }
    stride *= size;
  }
  return Int32Array.from(
    { length: count * endpointsPerSwitch },
    (_, i) => switches[Math.floor(i / endpointsPerSwitch)]!,
  );
}

function wireGraph(wiring: Wiring, { switches: count, cables, endpoints }: Of<'graph'>): Int32Array {
  const unknown = [...cables.flat(), ...endpoints].find((s) => s >= count);
  if (unknown !== undefined) {
    throw new UserError(`field topology: there is no switch ${unknown}; the ${count} are numbered from 0`);
  }
  const loop = cables.find(([a, b]) => a === b);
  if (loop)
    throw new UserError(`field topology.cables: a cable joins switch ${loop[0]} with itself; remove it`);
  const switches = Array.from({ length: count }, () => wiring.addSwitch({}));
  for (const [a, b] of cables) wiring.connect(switches[a]!, switches[b]!);
  return Int32Array.from(endpoints, (s) => switches[s]!);
}
