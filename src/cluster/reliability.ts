/** Failure rates of a network's parts, and what they cost a training job and its traffic [ISCA §6.1]. */
import { UserError } from '../errors.js';
import type { Fault } from '../spec/faults.js';
import type { Scenario } from '../spec/scenario.js';
import { buildNetwork, STORAGE_PLANE } from './build.js';
import { COMPUTE_CABLES } from './faults.js';
import { bestInterval, goodput } from './goodput.js';
import { ENDPOINT_CABLE, FABRIC_CABLE, type Network, SWITCH, verticesOf } from './graph.js';
import { bytesOf, placesOf, routeAll, simulate, workloadOf } from './simulate.js';

/** Parts of one kind. */
export interface PartFailures {
  part: string;
  count: number;
  mtbfHours: number;
  perDay: number;
  /** Broken at any time, on average. */
  broken: number;
  /** How many times as long the scenario's traffic takes with its busiest one broken; null where that ends the job. */
  slowdown: number | null;
}

export interface ReliabilityReport {
  name: string;
  parts: PartFailures[];
  /** Of the job: of all parts without which there is no way between some of its ranks. */
  jobMtbfSeconds: number;
  intervalSeconds: number;
  /** Share of time in which the job runs, on spare nodes while others are repaired. */
  availability: number;
  /** Share of time that becomes progress: less checkpoints, lost work and restarts. */
  goodput: number;
  /** How many times as long traffic takes on average, for the parts that are broken meanwhile. */
  meanSlowdown: number;
}

/** @throws UserError where the scenario has no workload, or a fault at a time */
export function failuresOf(scenario: Scenario): ReliabilityReport {
  if (scenario.faults.length > 0) {
    throw new UserError(`field faults: ${scenario.name} has faults of its own; leave them out to weigh all`);
  }
  const network = buildNetwork(scenario.network);
  const whole = simulate(scenario, { network });
  const { reliability } = scenario;
  const parts = classesOf(network, scenario).map(({ part, mtbfHours, count, worst }) => ({
    part,
    count,
    mtbfHours,
    perDay: (24 * count) / mtbfHours,
    broken: (count * reliability.repairHours) / (mtbfHours + reliability.repairHours),
    slowdown: worst.kind === 'node' ? null : slowdownBy(scenario, network, worst, whole.seconds),
  }));
  const endings = parts.reduce((sum, { slowdown, perDay }) => sum + (slowdown === null ? perDay : 0), 0);
  const jobMtbfSeconds = endings === 0 ? Infinity : 86400 / endings;
  const model = { ...reliability, mtbfSeconds: jobMtbfSeconds };
  const intervalSeconds = reliability.intervalSeconds ?? bestInterval(model);
  const up = jobMtbfSeconds === Infinity ? 1 : jobMtbfSeconds / (jobMtbfSeconds + model.restartSeconds);
  return {
    name: scenario.name,
    parts,
    jobMtbfSeconds,
    intervalSeconds,
    availability: up,
    goodput: goodput({ ...model, intervalSeconds }),
    meanSlowdown: parts.reduce((sum, { slowdown, broken }) => sum + broken * ((slowdown ?? 1) - 1), 1),
  };
}

/** Null where the traffic has no way left. */
function slowdownBy(scenario: Scenario, network: Network, fault: Fault, seconds: number): number | null {
  try {
    return simulate({ ...scenario, faults: [fault] }, { network }).seconds / seconds;
  } catch (error) {
    if (error instanceof UserError) return null;
    throw error;
  }
}

interface PartClass {
  part: string;
  count: number;
  mtbfHours: number;
  /** The one that most of the traffic passes. */
  worst: Fault;
}

function classesOf(network: Network, scenario: Scenario): PartClass[] {
  const { reliability, workload } = scenario;
  const workloads = workload!.map((traffic) => workloadOf(traffic, placesOf(network, scenario)));
  const load = new Load(network, bytesOf(network, routeAll(network, scenario, workloads)));
  const classes: PartClass[] = [];
  const add = (
    part: string,
    kind: Fault['kind'],
    mtbfHours: number,
    candidates: readonly (number | null)[],
  ) => {
    const count = candidates.filter((bytes) => bytes !== null).length;
    if (count > 0) classes.push({ part, count, mtbfHours, worst: { kind, index: busiest(candidates) } });
  };
  const nodes = network.endpoints.length / network.gpusPerNode;
  add('nodes', 'node', reliability.nodeMtbfHours, new Array<number>(nodes).fill(0));
  add('NICs', 'nic', reliability.nicMtbfHours, [...network.nics].map(load.ofVertex));
  const { cableMtbfHours } = reliability;
  add('cables to NICs', 'port', cableMtbfHours, load.ofCables([ENDPOINT_CABLE], ENDPOINT_CABLE));
  add('cables between switches', 'cable', cableMtbfHours, load.ofCables(COMPUTE_CABLES, FABRIC_CABLE));
  const switches = verticesOf(network, SWITCH);
  for (const layer of new Set(switches.map((v) => network.layer[v]!))) {
    const own = (v: number) => network.layer[v] === layer && network.plane[v] !== STORAGE_PLANE;
    const loads = switches.map((v) => (own(v) ? load.ofVertex(v) : null));
    add(`switches, layer ${layer}`, 'switch', reliability.switchMtbfHours, loads);
  }
  return classes;
}

/** The number of the candidate that carries most; those that are null are none. */
const busiest = (candidates: readonly (number | null)[]): number =>
  candidates.reduce<number>((best, bytes, i) => ((bytes ?? -1) > (candidates[best] ?? -1) ? i : best), 0);

/** What passes parts of a network. */
class Load {
  constructor(
    private readonly network: Network,
    /** [C] bytes. */
    private readonly passed: Float64Array,
  ) {}

  readonly ofVertex = (v: number): number => {
    const { offsets, outgoing } = this.network;
    let sum = 0;
    for (let i = offsets[v]!; i < offsets[v + 1]!; i++) sum += this.ofCable(outgoing[i]! >> 1);
    return sum;
  };

  /** Of all cables of some kinds, in the order in which faults count them; null for those that are not `wanted`, or of storage. */
  ofCables(counted: readonly number[], wanted: number): (number | null)[] {
    const { cableKind, plane, from, to } = this.network;
    const cables = [...cableKind.keys()].filter((e) => counted.includes(cableKind[e]!));
    return cables.map((e) => {
      const storage = plane[from[e]!] === STORAGE_PLANE || plane[to[e]!] === STORAGE_PLANE;
      return cableKind[e] === wanted && !storage ? this.ofCable(e) : null;
    });
  }

  private ofCable(e: number): number {
    return this.passed[2 * e]! + this.passed[2 * e + 1]!;
  }
}
