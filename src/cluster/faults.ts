import { UserError } from '../errors.js';
import type { Fault } from '../spec/scenario.js';
import { ENDPOINT_CABLE, FABRIC_CABLE, type Network, SWITCH, verticesOf } from './graph.js';
import type { Broken } from './switch-routes.js';

/** Vertices and cables that faults break. @throws UserError where a fault names what is not there */
export function brokenBy(network: Network, faults: readonly Fault[]): Broken {
  const vertices = new Set<number>();
  const cables = new Set<number>();
  for (const [i, fault] of faults.entries()) {
    if (fault.kind === 'cable') cables.add(pick(compute(network), fault, i));
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

/** Cables of NICs and between switches, in the order in which they were laid. */
function compute({ cableKind }: Network): number[] {
  const found: number[] = [];
  for (let e = 0; e < cableKind.length; e++) {
    if (cableKind[e] === FABRIC_CABLE || cableKind[e] === ENDPOINT_CABLE) found.push(e);
  }
  return found;
}

function pick(from: readonly number[], { kind, index }: Fault, i: number): number {
  if (index < from.length) return from[index]!;
  throw new UserError(
    `field faults.${i}.index: there is no ${kind} ${index}; the ${from.length} are numbered from 0`,
  );
}

/** What a training job loses to failures [ISCA §6.1]. */
export interface FailureModel {
  /** Mean time between failures of one part, seconds, and how many parts end the job when they fail. */
  partMtbfSeconds: number;
  parts: number;
  /** To write a checkpoint, and to be at work again after a failure. */
  checkpointSeconds: number;
  restartSeconds: number;
  /** Work between checkpoints. */
  intervalSeconds: number;
}

/**
 * The share of time that becomes progress, failures coming at random: work of an interval over the mean time that it takes,
 * (M + R)(e^((T + C)/M) - 1) [Daly 2006, equation 12, with M the job's mean time between failures].
 */
export function goodput(model: FailureModel): number {
  const { checkpointSeconds: c, restartSeconds: r, intervalSeconds: t } = model;
  const mtbf = model.partMtbfSeconds / model.parts;
  return t / ((mtbf + r) * Math.expm1((t + c) / mtbf));
}

/** The interval of greatest goodput to second order: √(2CM) less the checkpoint itself [Young 1974; Daly 2006]. */
export function bestInterval(model: Omit<FailureModel, 'intervalSeconds'>): number {
  const mtbf = model.partMtbfSeconds / model.parts;
  const { checkpointSeconds: c } = model;
  return c >= mtbf / 2 ? mtbf : Math.sqrt(2 * c * mtbf) - c;
}
