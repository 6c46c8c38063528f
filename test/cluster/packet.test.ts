import { describe, expect, it } from 'vitest';
import { buildNetwork } from '../../src/cluster/build.js';
import { runPackets } from '../../src/cluster/packet/engine.js';
import { preparePackets, simulatePackets } from '../../src/cluster/packet/simulate.js';
import { placesOf, simulate, workloadOf } from '../../src/cluster/simulate.js';
import { Random } from '../../src/numerics/random.js';
import type { NetworkInput } from '../../src/spec/network.js';
import type { PacketInput } from '../../src/spec/packet.js';
import {
  parseScenario,
  type Scenario,
  type ScenarioInput,
  type TrafficInput,
} from '../../src/spec/scenario.js';

type More = Partial<Omit<ScenarioInput, 'packet'>> & { packet?: PacketInput };
const scenario = (network: NetworkInput, workload: TrafficInput | TrafficInput[], more: More = {}) =>
  parseScenario({ name: 'test', network, workload: [workload].flat(), ...more }, 'test');
const run = (network: NetworkInput, workload: TrafficInput | TrafficInput[], more: More = {}) =>
  simulatePackets(scenario(network, workload, more));
const flows = (list: { from: number; to: number; bytes: number; start?: number }[]): TrafficInput => ({
  kind: 'flows',
  flows: list,
});

const prepare = (given: Scenario) => {
  const network = buildNetwork(given.network);
  const workloads = given.workload!.map((traffic) => workloadOf(traffic, placesOf(network, given)));
  return preparePackets(network, given, workloads);
};

/** 400 Gb/s are 50 GB/s: 20 ps a byte, so that times are whole picoseconds. */
const BETA = 1 / 50e9;
const MTU = 4096;

describe('on an idle network times are those of alpha and beta', () => {
  const [n, bytes] = [8, 8 * 65536];
  const latency = { hostNs: 400, switchNs: 300, cableNsPerMetre: 5, endpointMetres: 2 };
  const star: NetworkInput = { topology: { kind: 'star', endpoints: n }, latency };
  const alpha = 2 * 400e-9 + 300e-9 + 2 * 10e-9;

  it.each([
    ['one byte', flows([{ from: 0, to: 1, bytes: 1 }]), alpha + BETA],
    ['all-to-all', { kind: 'all-to-all', bytes }, alpha + ((n - 1) / n) * bytes * BETA],
    ['ring all-gather', { kind: 'all-gather', bytes }, (n - 1) * (alpha + (bytes / n) * BETA)],
    ['ring all-reduce', { kind: 'all-reduce', bytes }, 2 * (n - 1) * (alpha + (bytes / n) * BETA)],
    ['tree all-reduce', { kind: 'all-reduce', bytes, algorithm: 'tree' }, 2 * 3 * (alpha + bytes * BETA)],
    ['incast', { kind: 'incast', bytes, sources: 7 }, alpha + 7 * bytes * BETA],
    ['permutation', { kind: 'permutation', bytes }, alpha + bytes * BETA],
    [
      'pipeline',
      { kind: 'pipeline', bytes, microBatches: 5, stageSeconds: 1e-6 },
      (7 + 4) * (1e-6 + alpha + bytes * BETA),
    ],
  ] as [string, TrafficInput, number][])('%s', (_, workload, expected) => {
    // Whole picoseconds; twelve digits are what a sum of seconds in FP64 keeps of them.
    expect(run(star, workload).seconds / expected).toBeCloseTo(1, 12);
  });

  it('cut through over cables of different rates: the narrowest counts, once', () => {
    const network: NetworkInput = {
      topology: { kind: 'fat-tree', endpoints: 32, radix: 8 },
      endpointGbps: 400,
      fabricGbps: 200,
      latency,
    };
    const way = 800e-9 + 3 * 300e-9 + 2 * 10e-9 + 2 * 20 * 5e-9;
    const { seconds } = run(network, flows([{ from: 0, to: 31, bytes: 100 * MTU }]));
    expect(seconds / (way + 100 * MTU * 2 * BETA)).toBeCloseTo(1, 12);
  });

  it('store and forward: every cable counts for the last packet', () => {
    const { seconds } = run(star, flows([{ from: 0, to: 1, bytes: 10 * MTU }]), {
      packet: { switching: 'store-and-forward' },
    });
    expect(seconds / (alpha + 11 * MTU * BETA)).toBeCloseTo(1, 12);
  });
});

describe('a queue with arrivals at random and one size is M/D/1', () => {
  /** Mean wait in service times [Pollaczek 1930, Khinchine 1932]. */
  const mean = (load: number) => load / (2 * (1 - load));
  const poisson = (count: number, load: number, sources: number, seed: number) => {
    const random = new Random(seed);
    let time = 0;
    return Array.from({ length: count }, (_, i) => {
      time += (-Math.log(1 - random.uniform()) * MTU * BETA) / load;
      return { from: i % sources, to: sources, bytes: MTU, start: time };
    });
  };
  /** Mean waits of pieces in service times, the most urgent first. */
  const meanWaits = (network: NetworkInput, ...lists: ReturnType<typeof poisson>[]) => {
    const given = scenario(network, flows(lists[0]!.slice(0, 1)), { packet: { bufferBytes: 2 ** 26 } });
    // Strict parsing of so many flows takes longer than running them.
    given.workload = lists.map((list, i) => ({
      kind: 'flows',
      priority: 7 - i,
      flows: list.map((flow) => ({ ...flow, after: [], weight: 1 })),
    }));
    const { at, flows: made } = prepare(given);
    const { begin, end } = runPackets(at, made);
    return lists.map((list, i) => {
      const first = lists.slice(0, i).reduce((sum, { length }) => sum + length, 0);
      const spans = list.map((_, f) => end[first + f]! - begin[first + f]!);
      return spans.reduce((sum, span) => sum + span, 0) / list.length / (MTU * BETA) - 1;
    });
  };

  // Standard deviations of the mean of that many correlated waits: 0.8 % at a load of 0.3, 1 % at 0.6.
  it.each([0.3, 0.6])('at the source, load %d', (load) => {
    const list = poisson(200_000, load, 1, 7);
    const network: NetworkInput = { topology: { kind: 'star', endpoints: 2 }, latency: 'ideal' };
    const [wait] = meanWaits(network, list);
    expect(wait! / mean(load)).toBeGreaterThan(0.98);
    expect(wait! / mean(load)).toBeLessThan(1.02);
  });

  // Sources a hundred times faster than the cable between two switches, so that nothing waits before it.
  const narrow: NetworkInput = {
    topology: { kind: 'graph', switches: 2, cables: [[0, 1]], endpoints: [...Array(50).fill(0), 1] },
    endpointGbps: 40_000,
    fabricGbps: 400,
    latency: 'ideal',
  };

  it('inside a switch, load 0.6', () => {
    const [wait] = meanWaits(narrow, poisson(200_000, 0.6, 50, 3));
    expect(wait! / mean(0.6)).toBeGreaterThan(0.98);
    expect(wait! / mean(0.6)).toBeLessThan(1.02);
  });

  it('with two priorities, each of load 0.3: waits as Cobham has them', () => {
    const [urgent, other] = meanWaits(narrow, poisson(100_000, 0.3, 50, 3), poisson(100_000, 0.3, 50, 4));
    // W0 / (1 - ρ1) and W0 / ((1 - ρ1)(1 - ρ)), W0 = ρ/2 service times [Cobham 1954]. Half as many packets as above: 3 %.
    expect(urgent! / (0.3 / 0.7)).toBeGreaterThan(0.97);
    expect(urgent! / (0.3 / 0.7)).toBeLessThan(1.03);
    expect(other! / (0.3 / 0.7 / 0.4)).toBeGreaterThan(0.97);
    expect(other! / (0.3 / 0.7 / 0.4)).toBeLessThan(1.03);
  });
});

describe('where nothing is congested, packets take the time of flows', () => {
  const tree: NetworkInput = { topology: { kind: 'fat-tree', endpoints: 32, radix: 8 } };
  const planes: NetworkInput = {
    topology: { kind: 'multi-plane-fat-tree', endpoints: 32, planes: 4 },
    node: { gpus: 4, nics: 4 },
  };
  const bytes = 4 * 2 ** 20;
  it.each([
    ['shift', tree, flows(Array.from({ length: 32 }, (_, i) => ({ from: i, to: (i + 4) % 32, bytes })))],
    ['ring all-reduce', tree, { kind: 'all-reduce', bytes }],
    ['hierarchical all-reduce in planes', planes, { kind: 'all-reduce', bytes, algorithm: 'hierarchical' }],
    ['pipeline in planes', planes, { kind: 'pipeline', bytes, microBatches: 4, stride: 4 }],
    ['one flow over PXN', planes, flows([{ from: 0, to: 7, bytes }])],
    ['incast', tree, { kind: 'incast', bytes: 2 ** 20, sources: 20 }],
    ['expert dispatch', planes, { kind: 'ep-dispatch', tokens: 512, experts: 32, topK: 4, nodeLimit: 2 }],
  ] as [string, NetworkInput, TrafficInput][])('%s', (_, network, workload) => {
    const given = scenario(network, workload);
    expect(simulatePackets(given).seconds / simulate(given).seconds).toBeGreaterThan(0.97);
    expect(simulatePackets(given).seconds / simulate(given).seconds).toBeLessThan(1.03);
  });

  // All-gathers across the leaves of a RoCE fabric: hashes that collide cost as much, packet by packet [ISCA figure 8].
  it.each(['ecmp', 'static'] as const)('rings across leaves, %s, within 5 %', (mode) => {
    const network: NetworkInput = {
      topology: { kind: 'fat-tree', endpoints: 64, radix: 16 },
      latency: 'roce',
    };
    const rings: TrafficInput = { kind: 'all-gather', bytes: 2 ** 22, groupSize: 8, groupStride: 8 };
    const given = scenario(network, rings, { routing: { mode, seed: 2 } });
    expect(simulatePackets(given).seconds / simulate(given).seconds).toBeGreaterThan(0.95);
    expect(simulatePackets(given).seconds / simulate(given).seconds).toBeLessThan(1.05);
  });

  it('sprayed over the ports of a multi-port NIC', () => {
    const network: NetworkInput = {
      topology: { kind: 'multi-plane-fat-tree', endpoints: 16, planes: 4, multiPort: true },
    };
    const given = scenario(network, { kind: 'permutation', bytes }, { routing: { mode: 'spray' } });
    expect(simulatePackets(given).seconds / simulate(given).seconds).toBeCloseTo(1, 1);
  });
});

describe('ways of packets', () => {
  const tree: NetworkInput = { topology: { kind: 'fat-tree', endpoints: 128, radix: 16 } };
  const permutation: TrafficInput = { kind: 'permutation', bytes: 2 ** 20 };
  const seconds = (mode: 'ecmp' | 'spray', packet: PacketInput = {}) =>
    run(tree, permutation, { routing: { mode }, packet });

  it('sprayed, they use what hashed flows leave idle, and come out of order', () => {
    const [ecmp, random, shortest] = [
      seconds('ecmp'),
      seconds('spray'),
      seconds('spray', { spray: 'least-queued' }),
    ];
    expect(ecmp.seconds).toBeGreaterThan(1.5 * random.seconds);
    expect(shortest.seconds).toBeLessThan(random.seconds);
    expect(random.packets.overtaken).toBeGreaterThan(1000);
    expect(ecmp.packets.overtaken).toBe(0);
    expect(ecmp.packets.mostLatePlaces).toBe(0);
  });

  it('are the same for a seed', () => {
    const once = seconds('spray', { seed: 3 });
    expect(seconds('spray', { seed: 3 })).toEqual(once);
    expect(seconds('spray', { seed: 4 }).seconds).not.toBe(once.seconds);
  });

  // All of a group send to the next: the one cable between two groups is the bottleneck of shortest ways [Kim et al., ISCA'08 §4].
  it('take detours round the worst case of a Dragonfly, with UGAL only then', () => {
    const network: NetworkInput = { topology: { kind: 'dragonfly', p: 2, a: 4, h: 2 } };
    const [groups, size] = [9, 8];
    const next = (bytes: number) =>
      flows(
        Array.from({ length: groups * size }, (_, i) => ({
          from: i,
          to: (i + size) % (groups * size),
          bytes,
        })),
      );
    const take = (mode: 'ecmp' | 'valiant', workload: TrafficInput, packet: PacketInput = {}) =>
      run(network, workload, { routing: { mode }, packet });
    const worst = next(2 ** 18);
    const [minimal, detour, ugal] = [
      take('ecmp', worst),
      take('valiant', worst),
      take('valiant', worst, { detour: 'ugal' }),
    ];
    expect(minimal.seconds).toBeGreaterThan(2 * detour.seconds);
    expect(ugal.seconds).toBeLessThan(1.25 * detour.seconds);
    const even: TrafficInput = { kind: 'all-to-all', bytes: 72 * 4 * MTU };
    const direct = take('valiant', even, { detour: 'ugal' });
    expect(direct.packets.hops).toBeLessThan(0.85 * take('valiant', even).packets.hops);
    expect(direct.seconds).toBeLessThan(take('valiant', even).seconds);
  });
});

describe('one line for each input', () => {
  /** Every source sends single packets to destinations at random, as fast as it can. */
  const uniform = (n: number, each: number): TrafficInput => {
    const random = new Random(5);
    return flows(
      Array.from({ length: n * each }, (_, i) => {
        const from = Math.floor(i / each);
        return { from: 2 * from, to: 2 * random.below(n) + 1, bytes: MTU };
      }),
    );
  };
  it('carries 62 % of full load on 8 ports, lines for each output nearly all', () => {
    const [n, each] = [8, 3000];
    // Sources and destinations are different NICs of one switch: 8 inputs, 8 outputs.
    const network: NetworkInput = { topology: { kind: 'star', endpoints: 2 * n }, latency: 'ideal' };
    const share = (queueing: 'voq' | 'input', bufferBytes: number) =>
      (each * MTU * BETA) / run(network, uniform(n, each), { packet: { queueing, bufferBytes } }).seconds;
    // 0.6184 at N = 8 [Karol, Hluchyj and Morgan 1987, table I]; theirs is slotted and picks at random, so 3 %.
    const line = share('input', 16 * MTU);
    expect(line / 0.6184).toBeGreaterThan(0.97);
    expect(line / 0.6184).toBeLessThan(1.03);
    expect(share('voq', 256 * MTU)).toBeGreaterThan(0.9);
  });
});

describe('links with bit errors', () => {
  it('send again what is damaged, at the price of go-back-N', () => {
    // Flights of 200 ns, so that asking again costs more than sending again.
    const latency = { hostNs: 0, switchNs: 0, cableNsPerMetre: 5, endpointMetres: 40 };
    const star: NetworkInput = { topology: { kind: 'star', endpoints: 2 }, latency };
    const bytes = 20_000 * MTU;
    const bitErrorRate = 1e-6;
    const { seconds, packets } = run(star, flows([{ from: 0, to: 1, bytes }]), { packet: { bitErrorRate } });
    const damaged = 1 - (1 - bitErrorRate) ** (8 * MTU);
    const expected = damaged / (1 - damaged);
    // 40,000 cables crossed, 1,333 errors: 4 % is 1.5 standard deviations.
    expect(packets.retries / (40_000 * expected)).toBeGreaterThan(0.96);
    expect(packets.retries / (40_000 * expected)).toBeLessThan(1.04);
    expect(packets.packets).toBe(20_000);
    // Each cable loses a packet's time and the way to and fro; two in a row, the buffer between them absorbs most.
    const slower = 1 + expected * (1 + (2 * 200e-9) / (MTU * BETA));
    expect(seconds / (bytes * BETA * slower)).toBeGreaterThan(0.98);
    expect(seconds / (bytes * BETA * slower)).toBeLessThan(1.04);
  });
});

describe('priorities', () => {
  const star: NetworkInput = { topology: { kind: 'star', endpoints: 3 } };
  const bulk: TrafficInput = flows([{ from: 0, to: 2, bytes: 64 * 2 ** 20 }]);
  const urgent = (priority: number): TrafficInput => ({
    kind: 'flows',
    flows: [{ from: 1, to: 2, bytes: 32 * 2 ** 20, start: 1e-5 }],
    priority,
  });
  const alone = run(star, urgent(0)).seconds;

  it('strict: the urgent waits for a packet at most, and who starves is told', () => {
    const { pieces, packets } = run(star, [bulk, urgent(1)], { packet: { starvationSeconds: 1e-4 } });
    expect(pieces[1]!.seconds - alone).toBeLessThan(2 * MTU * BETA);
    expect(packets.starved).toHaveLength(1);
    expect(packets.starved[0]).toMatch(
      /^a packet of transfer 0 of 1 flows \(endpoint 0 to 2\) waited 6\d\d\.\d µs at switch .*, behind 1 more urgent priority/,
    );
    expect(run(star, [bulk, urgent(0)], { packet: { starvationSeconds: 1e-4 } }).packets.starved).toEqual([]);
  });

  it('in shares: three to one', () => {
    const { pieces } = run(star, [bulk, urgent(1)], { packet: { priorities: [3, 1] } });
    // 32 MiB at three quarters of the cable.
    expect((pieces[1]!.seconds - 1e-5) / (32 * 2 ** 20 * BETA)).toBeCloseTo(4 / 3, 1);
  });
});

describe('sources', () => {
  it('share their port with what a relay passes on', () => {
    const network: NetworkInput = {
      topology: { kind: 'multi-plane-fat-tree', endpoints: 8, planes: 4, radix: 8 },
      node: { gpus: 4, nics: 4 },
    };
    // PXN: GPU 1 sends to plane 0 by way of GPU 0, whose own flow goes there too.
    const both = flows([0, 1].map((from) => ({ from, to: 4, bytes: 1000 * MTU })));
    const { least, most } = run(network, both).pieces[0]!.flowSeconds;
    expect(least / most).toBeGreaterThan(0.95);
  });

  const star: NetworkInput = { topology: { kind: 'star', endpoints: 3 }, latency: 'ideal' };
  it('keep to weights and caps', () => {
    const list = [
      { from: 0, to: 1, bytes: 3000 * MTU, weight: 3 },
      { from: 0, to: 2, bytes: 1000 * MTU, weight: 1 },
    ];
    const { flowSeconds } = run(star, { kind: 'flows', flows: list }).pieces[0]!;
    expect(flowSeconds.least / flowSeconds.most).toBeCloseTo(1, 2);
    const capped = run(star, {
      kind: 'flows',
      flows: [
        { from: 0, to: 1, bytes: 1000 * MTU, capGBps: 10 },
        { from: 0, to: 2, bytes: 1000 * MTU },
      ],
    }).pieces[0]!.flowSeconds;
    expect(capped.most / (1000 * MTU * 5 * BETA)).toBeCloseTo(1, 2);
    expect(capped.least / (1000 * MTU * BETA)).toBeCloseTo(1.25, 2);
  });
});
