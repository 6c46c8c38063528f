/** The packet engine's speed: packets times cables crossed, by second of the processor. */
import { buildNetwork } from '../cluster/build.js';
import { runPackets } from '../cluster/packet/engine.js';
import { preparePackets } from '../cluster/packet/simulate.js';
import { placesOf, workloadOf } from '../cluster/simulate.js';
import type { Ui } from '../report/ui.js';
import { parseScenario, type ScenarioInput } from '../spec/scenario.js';

export interface PacketCase {
  name: string;
  packets: number;
  hops: number;
  /** Of the event queue. */
  events: number;
  /** Median of the runs after the first; of the first, which is compiled on the way. */
  hopsPerSecond: number;
  firstHopsPerSecond: number;
  mostInFlight: number;
  bytesPerPacket: number;
  /** Until the last byte is there, simulated. */
  seconds: number;
  /** htsim's events per second for that traffic, measured on the machine of bench/results at another time. */
  htsimPerSecond: number;
}

interface Plan {
  name: string;
  scenario: ScenarioInput;
  htsimPerSecond: number;
}

/** A three-layer fat-tree of k-port switches with as many hosts as it has room for, k³/4. */
const permutation = (radix: number, mode: 'ecmp' | 'spray'): ScenarioInput => ({
  name: 'permutation',
  network: { topology: { kind: 'fat-tree', layers: 3, radix, endpoints: radix ** 3 / 4 } },
  routing: { mode },
  workload: [{ kind: 'permutation', bytes: 2e6 }],
});

const allToAll = (mode: 'ecmp' | 'spray'): ScenarioInput => ({
  name: 'all-to-all',
  network: { topology: { kind: 'fat-tree', endpoints: 64, radix: 16 } },
  routing: { mode },
  workload: [{ kind: 'all-to-all', bytes: 64 * 2 ** 20 }],
});

const MODES = ['ecmp', 'spray'] as const;
const PLANS: readonly Plan[] = MODES.flatMap((mode) => [
  {
    name: `permutation of 128, 2 MB, ${mode}`,
    scenario: permutation(8, mode),
    htsimPerSecond: 3.7e6,
  },
  {
    name: `permutation of 1,024, 2 MB, ${mode}`,
    scenario: permutation(16, mode),
    htsimPerSecond: 0.95e6,
  },
  { name: `all-to-all of 64, 1 MiB each, ${mode}`, scenario: allToAll(mode), htsimPerSecond: 1.75e6 },
]);

/** Runs of each case; the first one is cold. */
const RUNS = 6;

/** @param only cases whose name contains this */
export function benchPackets({ only = '' }: { only?: string }, ui: Ui): PacketCase[] {
  const plans = PLANS.filter(({ name }) => name.includes(only));
  const progress = ui.progress('packets');
  const cases = plans.map((plan, done) => {
    const measured = measure(plan);
    progress.update({ done: done + 1, total: plans.length });
    return measured;
  });
  progress.end();
  return cases;
}

function measure({ name, scenario: input, htsimPerSecond }: Plan): PacketCase {
  const scenario = parseScenario(input, name);
  const network = buildNetwork(scenario.network);
  const workloads = scenario.workload!.map((traffic) => workloadOf(traffic, placesOf(network, scenario)));
  const runs = Array.from({ length: RUNS }, () => {
    const { at, flows } = preparePackets(network, scenario, workloads);
    const begin = process.cpuUsage().user;
    const { stats, events, seconds } = runPackets(at, flows);
    return { stats, events, seconds, perSecond: (1e6 * stats.hops) / (process.cpuUsage().user - begin) };
  });
  const [first, ...warm] = runs.map(({ perSecond }) => perSecond);
  const { stats, events, seconds } = runs[0]!;
  return {
    name,
    packets: stats.packets,
    hops: stats.hops,
    events,
    hopsPerSecond: warm.sort((a, b) => a - b)[Math.floor(warm.length / 2)]!,
    firstHopsPerSecond: first!,
    mostInFlight: stats.mostInFlight,
    bytesPerPacket: stats.bytesPerPacket,
    seconds,
    htsimPerSecond,
  };
}
