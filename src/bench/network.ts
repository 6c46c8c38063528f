/** The flow engine's speed: processor time of all-to-alls on fat-trees, every flow its own unless folded. Packets: packets.ts. */

import { cpus } from 'node:os';
import { buildNetwork } from '../cluster/build.js';
import { runFlows } from '../cluster/flow-engine.js';
import { placesOf, routeAll, simulate, workloadOf } from '../cluster/simulate.js';
import type { Ui } from '../report/ui.js';
import { parseScenario, type ScenarioInput } from '../spec/scenario.js';
import { benchPackets, type PacketCase } from './packets.js';
import { buildSimgrid, runSimgrid, type SimgridRun, WAYS, type Way } from './simgrid.js';

export interface NetworkCase {
  name: string;
  flows: number;
  /** Times at which rates changed. */
  events: number;
  /** To build the network and give every flow its way, and to run the flows; seconds of the processor. */
  routingSeconds: number;
  runSeconds: number;
  /** Most that the run may take, and most resident bytes where that is bounded. */
  targetSeconds: number;
  /** Resident memory after the run. */
  residentBytes: number;
  /** The same by SimGrid 3.32 (Debian) at another time, the fastest of four ways to post flows. */
  simgridSeconds: number | null;
  /** The same by SimGrid in this run; only with a peer. */
  peer?: PeerCase;
}

export interface PeerCase {
  way: Way;
  /** The limit where it was given up. */
  seconds: number;
  finished: boolean;
  residentBytes: number;
  /** The largest difference between its ends of flows and ours, over the end. */
  apart: number;
}

export interface NetworkReport {
  /** What this was measured on. */
  machine: { cpu: string; cores: number; node: string };
  cases: NetworkCase[];
  packets: PacketCase[];
}

interface Plan {
  name: string;
  scenario: ScenarioInput;
  targetSeconds: number;
  simgridSeconds: number | null;
  fold?: boolean;
  long?: boolean;
  /** Ways that SimGrid is tried in; none where it would take too long. */
  ways?: readonly Way[];
}

/** Without latencies, which SimGrid's model treats in its own way. */
const allToAll = (endpoints: number, spread: number): ScenarioInput => ({
  name: 'all-to-all',
  network: { topology: { kind: 'fat-tree', endpoints }, latency: 'ideal' },
  workload: [{ kind: 'all-to-all', bytes: endpoints * 2 ** 20, spread }],
});

const planes = (endpoints: number, mode: 'static' | 'ecmp'): ScenarioInput => ({
  name: 'all-to-all',
  network: { topology: { kind: 'multi-plane-fat-tree', endpoints }, node: {} },
  routing: { mode },
  workload: [{ kind: 'all-to-all', bytes: 2 ** 30 }],
});

const PLANS: readonly Plan[] = [
  {
    name: '128 NICs, equal sizes',
    scenario: allToAll(128, 0),
    targetSeconds: 0.3,
    simgridSeconds: null,
    ways: WAYS,
  },
  { name: '256 NICs, equal sizes', scenario: allToAll(256, 0), targetSeconds: 0.3, simgridSeconds: 3.3 },
  { name: '1,024 NICs, equal sizes', scenario: allToAll(1024, 0), targetSeconds: 10, simgridSeconds: 380 },
  {
    name: '64 NICs, sizes ±50 %',
    scenario: allToAll(64, 0.5),
    targetSeconds: 0.5,
    simgridSeconds: null,
    ways: WAYS,
  },
  {
    name: '128 NICs, sizes ±50 %',
    scenario: allToAll(128, 0.5),
    targetSeconds: 1,
    simgridSeconds: 70,
    ways: ['detached'],
  },
  {
    name: '16,384 GPUs in planes, folded',
    scenario: planes(16384, 'static'),
    targetSeconds: 1,
    simgridSeconds: null,
    fold: true,
  },
  {
    name: '512 NICs, sizes ±50 %',
    scenario: allToAll(512, 0.5),
    targetSeconds: 60,
    simgridSeconds: null,
    long: true,
  },
  {
    name: '2,048 GPUs in planes, ECMP',
    scenario: planes(2048, 'ecmp'),
    targetSeconds: 60,
    simgridSeconds: null,
    long: true,
  },
];

/** @param long also the cases that take a minute; @param only those whose name contains this */
export function benchNetwork(
  { long = false, only = '', peer }: { long?: boolean; only?: string; peer?: 'simgrid' },
  ui: Ui,
): NetworkReport {
  const simgrid = peer === undefined ? undefined : buildSimgrid();
  const plans = PLANS.filter((plan) => (long || !plan.long) && plan.name.includes(only));
  const progress = ui.progress('network');
  const cases = plans.map((plan, done) => {
    const measured = plan.fold ? measureFolded(plan) : measure(plan, simgrid);
    progress.update({ done: done + 1, total: plans.length });
    return measured;
  });
  progress.end();
  return { machine: machineOf(), cases, packets: benchPackets({ only }, ui) };
}

const machineOf = (): NetworkReport['machine'] => ({
  cpu: cpus()[0]?.model ?? 'unknown',
  cores: cpus().length,
  node: process.version,
});

const processorSeconds = (): number => process.cpuUsage().user / 1e6;

function measure(plan: Plan, simgrid: string | undefined): NetworkCase {
  const { name, scenario: input, targetSeconds, simgridSeconds, ways = [] } = plan;
  const scenario = parseScenario(input, name);
  const begin = processorSeconds();
  const network = buildNetwork(scenario.network);
  const workloads = scenario.workload!.map((traffic) => workloadOf(traffic, placesOf(network, scenario)));
  const flows = routeAll(network, scenario, workloads);
  // SimGrid counts whole bytes.
  for (let f = 0; f < flows.count; f++) flows.bytes[f] = Math.floor(flows.bytes[f]!);
  const routed = processorSeconds();
  const { events, end } = runFlows(flows);
  const runSeconds = processorSeconds() - routed;
  const residentBytes = process.memoryUsage.rss();
  const routingSeconds = routed - begin;
  const runs = simgrid ? ways.map((way) => runSimgrid(simgrid, way, flows, workloads[0]!.transfers)) : [];
  return {
    name,
    flows: flows.count,
    events,
    routingSeconds,
    runSeconds,
    targetSeconds,
    residentBytes,
    simgridSeconds,
    ...(runs.length > 0 ? { peer: fastest(runs, end) } : {}),
  };
}

function fastest(runs: readonly SimgridRun[], ours: Float64Array): PeerCase {
  const { way, seconds, finished, residentBytes, ends } = runs.reduce((a, b) =>
    b.seconds < a.seconds ? b : a,
  );
  const apart = ends.reduce((most, end, f) => Math.max(most, Math.abs(end - ours[f]!) / ours[f]!), 0);
  return { way, seconds, finished, residentBytes, apart };
}

/** Folding is part of the work: all of it is counted. */
function measureFolded({ name, scenario, targetSeconds, simgridSeconds }: Plan): NetworkCase {
  const begin = processorSeconds();
  const { flows, events } = simulate(parseScenario(scenario, name), { fold: true });
  const runSeconds = processorSeconds() - begin;
  const residentBytes = process.memoryUsage.rss();
  return { name, flows, events, routingSeconds: 0, runSeconds, targetSeconds, residentBytes, simgridSeconds };
}
