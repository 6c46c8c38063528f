import { UserError } from '../errors.js';
import type { Fault } from '../spec/faults.js';
import { ENDPOINT_CABLE, FABRIC_CABLE, type Network, SWITCH, verticesOf } from './graph.js';
import type { Broken } from './switch-routes.js';

/** Vertices and cables that faults break. @throws UserError where a fault names what is not there */
export function brokenBy(network: Network, faults: readonly Fault[]): Broken {
  const vertices = new Set<number>();
  const cables = new Set<number>();
  for (const [i, fault] of faults.entries()) {
    if (fault.kind === 'cable') cables.add(pick(cablesOf(network, COMPUTE_CABLES), fault, i));
    else if (fault.kind === 'port') cables.add(pick(cablesOf(network, [ENDPOINT_CABLE]), fault, i));
    else for (const vertex of verticesBy(network, fault, i)) vertices.add(vertex);
  }
  return { vertices, cables };
}

function verticesBy(network: Network, fault: Fault, i: number): number[] {
  const switches = verticesOf(network, SWITCH);
  switch (fault.kind) {
    case 'switch':
      return [pick(switches, fault, i)];
    case 'nic':
      return [pick([...network.nics], fault, i)];
    case 'node': {
      const nodes = [...new Set(network.group.filter((_, v) => network.kind[v] !== SWITCH))];
      const node = pick(nodes, fault, i);
      return all(network).filter((v) => network.kind[v] !== SWITCH && network.group[v] === node);
    }
    default: {
      const planes = [...new Set(switches.map((v) => network.plane[v]!))];
      const plane = pick(planes, fault, i);
      return switches.filter((v) => network.plane[v] === plane);
    }
  }
}

const all = ({ vertexCount }: Network): number[] => Array.from({ length: vertexCount }, (_, v) => v);

/** Cables of NICs and between switches. */
export const COMPUTE_CABLES: readonly number[] = [FABRIC_CABLE, ENDPOINT_CABLE];

/** Cables of these kinds, in the order in which they were laid. */
function cablesOf({ cableKind }: Network, kinds: readonly number[]): number[] {
  const found: number[] = [];
  for (let e = 0; e < cableKind.length; e++) if (kinds.includes(cableKind[e]!)) found.push(e);
  return found;
}

function pick(from: readonly number[], { kind, index }: Fault, i: number): number {
  if (index < from.length) return from[index]!;
  throw new UserError(
    `field faults.${i}.index: there is no ${kind} ${index}; the ${from.length} are numbered from 0, so the last is ${from.length - 1}`,
  );
}
