import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { buildNetwork } from '../../src/cluster/build.js';
import { headOf, tailOf } from '../../src/cluster/graph.js';
import { runPackets } from '../../src/cluster/packet/engine.js';
import { preparePackets, simulatePackets } from '../../src/cluster/packet/simulate.js';
import { placesOf, workloadOf } from '../../src/cluster/simulate.js';
import type { NetworkInput } from '../../src/spec/network.js';
import type { PacketInput } from '../../src/spec/packet.js';
import { parseScenario, type ScenarioInput, type TrafficInput } from '../../src/spec/scenario.js';

const MTU = 4096;
const BETA = 1 / 50e9;
const parse = (given: Omit<ScenarioInput, 'name'>) => parseScenario({ name: 'test', ...given }, 'test');
const times = (given: Omit<ScenarioInput, 'name'>) => {
  const scenario = parse(given);
  const network = buildNetwork(scenario.network);
  const workloads = scenario.workload!.map((traffic) => workloadOf(traffic, placesOf(network, scenario)));
  const { at, flows } = preparePackets(network, scenario, workloads);
  return { network, flows, ...runPackets(at, flows) };
};

/** Detours and priorities together may ask for more lanes than a port has. */
const ranOrLanes = (given: Omit<ScenarioInput, 'name'>) => {
  try {
    return times(given);
  } catch (error) {
    if (/ lanes, and a port with (credits|pfc) has /.test(String(error))) return 'too many lanes' as const;
    throw error;
  }
};

const networks: NetworkInput[] = [
  { topology: { kind: 'fat-tree', endpoints: 16, radix: 8 } },
  { topology: { kind: 'torus', dimensions: [3, 3], endpointsPerSwitch: 2 }, latency: 'roce' },
  { topology: { kind: 'slim-fly', q: 3, endpointsPerSwitch: 1 } },
  { topology: { kind: 'dragonfly', p: 1, a: 3, h: 1, unbalanced: true }, latency: 'ideal' },
  {
    topology: { kind: 'multi-plane-fat-tree', endpoints: 16, planes: 4 },
    node: { gpus: 4, nics: 4 },
    fabricGbps: 200,
  },
];

const cases = fc.record({
  network: fc.constantFrom(...networks),
  routing: fc.record({
    mode: fc.constantFrom('static', 'ecmp', 'adaptive', 'spray', 'valiant'),
    seed: fc.nat(9),
  }),
  packet: fc.record({
    mtuBytes: fc.constantFrom(64, 1000, 4096),
    flowControl: fc.constantFrom('credits', 'pfc'),
    congestionControl: fc.constantFrom('none', 'dcqcn', 'rtt'),
    bufferBytes: fc.constantFrom(4096, 10_000, 131_072),
    resumeBytes: fc.constantFrom(1000, 4096),
    queueing: fc.constantFrom('voq', 'input'),
    switching: fc.constantFrom('cut-through', 'store-and-forward'),
    spray: fc.constantFrom('random', 'least-queued'),
    detour: fc.constantFrom('always', 'ugal'),
    priorities: fc.constantFrom('strict', [2, 1]),
    bitErrorRate: fc.constantFrom(0, 1e-5),
  }),
  workload: fc.array(
    fc.record({
      kind: fc.constant('flows' as const),
      priority: fc.nat(2),
      flows: fc.array(
        fc.record({
          from: fc.nat(8),
          to: fc.nat(8),
          bytes: fc.oneof(fc.nat(20_000), fc.nat(200_000)),
          start: fc.constantFrom(0, 1e-7, 3e-6),
          weight: fc.constantFrom(1, 1, 2.5),
        }),
        { minLength: 1, maxLength: 12 },
      ),
    }),
    { minLength: 1, maxLength: 3 },
  ),
}) as fc.Arbitrary<Omit<ScenarioInput, 'name'>>;

describe('nothing is lost', () => {
  it('whatever the network, ways, flow control and traffic', () => {
    fc.assert(
      fc.property(cases, (given) => {
        const ran = ranOrLanes(given);
        fc.pre(ran !== 'too many lanes');
        const { network, flows, passed, end, begin, stats } = ran;
        const into = new Float64Array(network.vertexCount);
        for (let c = 0; c < passed.length; c++) {
          into[headOf(network, c)]! += passed[c]!;
          into[tailOf(network, c)]! -= passed[c]!;
        }
        // What came into a switch left it; what endpoints sent is what they got, each its own.
        const own = new Float64Array(network.vertexCount);
        const list = given.workload!.flatMap((traffic) => ('flows' in traffic ? traffic.flows : []));
        for (const { from, to, bytes } of list) {
          own[network.endpoints[from]!]! -= bytes;
          own[network.endpoints[to]!]! += bytes;
        }
        expect(into).toEqual(own);
        for (let f = 0; f < flows.count; f++) expect(end[f]).toBeGreaterThanOrEqual(begin[f]! - 1e-15);
        const mtu = given.packet!.mtuBytes!;
        const needed = list.map(({ from, to, bytes }) => (from === to ? 0 : Math.ceil(bytes / mtu)));
        expect(stats.packets).toBe(needed.reduce((sum, n) => sum + n, 0));
      }),
      { numRuns: 120 },
    );
  });

  it('with PFC a buffer never holds more than its room and what a pause lets come', () => {
    const packet: PacketInput = { flowControl: 'pfc', bufferBytes: 65_536 };
    const { stats } = times({
      network: { topology: { kind: 'fat-tree', endpoints: 64, radix: 16 }, latency: 'roce' },
      workload: [{ kind: 'incast', bytes: 2 ** 20, sources: 40 }],
      packet,
    });
    expect(stats.pauses).toBeGreaterThan(0);
    // Room and the switch's own 900 ns; then a pause's flight, the same 900 ns and packets begun on both ends.
    const [pipeline, loop] = [900e-9 * 50e9, (900e-9 + 2 * 90e-9) * 50e9];
    expect(stats.mostHeldBytes).toBeLessThan(65_536 + pipeline + loop + 3 * MTU);
    expect(stats.mostHeldBytes).toBeGreaterThan(65_536);
  });

  it('small buffers throttle a long cable to a buffer per round trip', () => {
    const network: NetworkInput = {
      topology: { kind: 'graph', switches: 2, cables: [[0, 1]], endpoints: [0, 1] },
      latency: { hostNs: 0, switchNs: 0, cableNsPerMetre: 5, endpointMetres: 0, fabricMetres: 2000 },
    };
    const workload: TrafficInput[] = [{ kind: 'flows', flows: [{ from: 0, to: 1, bytes: 2000 * MTU }] }];
    const seconds = (bufferBytes: number) => times({ network, workload, packet: { bufferBytes } }).seconds;
    // A credit is back a flight to and fro (2 · 10 µs) and a packet's time after its packet has left: 64 packets in that time.
    const loop = 2 * 10e-6 + MTU * BETA;
    expect(seconds(64 * MTU) / (2000 * (loop / 64))).toBeCloseTo(1, 1);
    expect(seconds(2 ** 21) / (2000 * MTU * BETA + 10e-6)).toBeCloseTo(1, 3);
  });
});

describe('deadlock', () => {
  /** Everybody sends two switches on, round a ring: without virtual channels every buffer waits for the next. */
  const ring = (packet: PacketInput) =>
    parse({
      network: {
        topology: {
          kind: 'graph',
          switches: 5,
          cables: [
            [0, 1],
            [1, 2],
            [2, 3],
            [3, 4],
            [4, 0],
          ],
          endpoints: [0, 1, 2, 3, 4],
        },
      },
      workload: [
        {
          kind: 'flows',
          flows: Array.from({ length: 5 }, (_, i) => ({ from: i, to: (i + 2) % 5, bytes: 2 ** 22 })),
        },
      ],
      packet,
    });

  it.each(['credits', 'pfc'] as const)(
    'of a ring without virtual channels is found and named, %s',
    (flowControl) => {
      expect(() => simulatePackets(ring({ virtualChannels: 1, flowControl }))).toThrow(
        /^deadlock at \d+\.\d+ µs: \d+ packets wait for each other for ever in a circle of 5 buffers, switch \d .* → switch \d .*; 1 virtual channel is too few/,
      );
    },
  );

  it('is gone with the virtual channels that the ways need', () => {
    const { packets, seconds } = simulatePackets(ring({}));
    expect(packets.virtualChannels).toBe(2);
    expect(seconds / (2 * 2 ** 22 * BETA)).toBeLessThan(1.5);
  });

  it.each([
    ['fat-tree', { kind: 'fat-tree', endpoints: 32, radix: 8 }, 'ecmp', 1],
    ['fat-tree', { kind: 'fat-tree', endpoints: 32, radix: 8 }, 'spray', 1],
    ['fat-tree, detours', { kind: 'fat-tree', endpoints: 32, radix: 8 }, 'valiant', 2],
    ['Slim Fly', { kind: 'slim-fly', q: 5 }, 'spray', 2],
    ['Slim Fly, detours', { kind: 'slim-fly', q: 5 }, 'valiant', 4],
    ['Dragonfly', { kind: 'dragonfly', p: 2, a: 4, h: 2 }, 'ecmp', 2],
    ['Dragonfly, detours', { kind: 'dragonfly', p: 2, a: 4, h: 2 }, 'valiant', 6],
  ] as const)('%s: virtual channels', (_, topology, mode, expected) => {
    const { packets } = simulatePackets(
      parse({
        network: { topology },
        routing: { mode },
        workload: [{ kind: 'all-to-all', bytes: 32 * 2 * MTU, ranks: 32 }],
        packet: { bufferBytes: MTU },
      }),
    );
    expect(packets.virtualChannels).toBe(expected);
  });

  it('asks for more lanes than there are on a ring of many switches', () => {
    const given = parse({
      network: { topology: { kind: 'torus', dimensions: [40] } },
      routing: { mode: 'valiant' },
      workload: [{ kind: 'permutation', bytes: 1 }],
    });
    expect(() => simulatePackets(given)).toThrow(
      /^40 virtual channels.* for each of 1 priority are 40 lanes, and a port with credits has 15/,
    );
  });
});

describe('congestion of many to one, and a flow that only shares a cable with it', () => {
  const incast = (packet: PacketInput, sources = 30) => {
    const given = parse({
      network: { topology: { kind: 'fat-tree', endpoints: 64, radix: 16 }, latency: 'roce' },
      workload: [
        {
          kind: 'flows',
          flows: Array.from({ length: sources }, (_, i) => ({ from: 8 + i, to: 0, bytes: 2 ** 21 })),
        },
        // From the senders' leaf to another NIC of the receiver's leaf: nobody else wants it.
        { kind: 'flows', flows: [{ from: 15, to: 1, bytes: 2 ** 21 }] },
      ],
      packet: { bufferBytes: 65_536, ...packet },
    });
    const { pieces, packets } = simulatePackets(given);
    return { all: pieces[0]!.seconds, victim: pieces[1]!.seconds, ...packets };
  };
  const ideal = 30 * 2 ** 21 * BETA;

  it('fills the cable with any flow control, and holds up the bystander without congestion control', () => {
    for (const flowControl of ['credits', 'pfc'] as const) {
      const { all, victim, pauses } = incast({ flowControl });
      expect(all / ideal).toBeLessThan(1.02);
      // Buffers fill back to the senders, so that the bystander waits behind them [congestion spreading].
      expect(victim / (2 ** 21 * BETA)).toBeGreaterThan(3);
      expect(pauses > 0).toBe(flowControl === 'pfc');
    }
  });

  it('DCQCN pauses less, and frees the bystander at the price of the sum', () => {
    const [plain, dcqcn] = [
      incast({ flowControl: 'pfc', bufferBytes: 2 ** 19 }),
      incast({ flowControl: 'pfc', bufferBytes: 2 ** 19, congestionControl: 'dcqcn' }),
    ];
    expect(dcqcn.marks).toBeGreaterThan(0);
    expect(dcqcn.cuts).toBeGreaterThan(30);
    expect(dcqcn.pauses).toBeLessThan(0.75 * plain.pauses);
    expect(dcqcn.victim).toBeLessThan(0.5 * plain.victim);
    expect(dcqcn.all).toBeGreaterThan(1.2 * plain.all);
  });

  it('DCQCN cut to its least comes back', () => {
    const { all } = incast({
      flowControl: 'pfc',
      bufferBytes: 2 ** 21,
      congestionControl: 'dcqcn',
      dcqcn: { maxQueueBytes: 20_000, maxMarkShare: 1, leastMbps: 1 },
    });
    expect(all / ideal).toBeLessThan(5);
  });

  it('control by round trips keeps queues short, pauses hardly and fills the cable', () => {
    const [plain, rtt] = [
      incast({ flowControl: 'pfc' }),
      incast({ flowControl: 'pfc', congestionControl: 'rtt' }),
    ];
    expect(rtt.victim).toBeLessThan(0.6 * plain.victim);
    expect(rtt.pauses).toBeLessThan(0.5 * plain.pauses);
    expect(rtt.all / ideal).toBeLessThan(1.1);
  });
});

describe('what does not fit is told', () => {
  const star: NetworkInput = { topology: { kind: 'star', endpoints: 4 } };
  const run = (packet: PacketInput, workload?: TrafficInput) =>
    simulatePackets(
      parse({ network: star, workload: [workload ?? { kind: 'permutation', bytes: 1 }], packet }),
    );
  it('by field', () => {
    expect(() => run({ bufferBytes: 1000 })).toThrow(/packet.bufferBytes: 1000 bytes hold no packet of 4096/);
    expect(() => run({ flowControl: 'pfc', bufferBytes: 8000, resumeBytes: 9000 })).toThrow(/resumeBytes/);
    expect(() => run({ mtu: 9 } as never)).toThrow(/unknown field "mtu" in packet/);
    expect(() => run({ bitErrorRate: -1 })).toThrow(/packet.bitErrorRate/);
    const circle = [
      { from: 0, to: 1, bytes: 1, after: [1] },
      { from: 1, to: 0, bytes: 1, after: [0] },
    ];
    expect(() => run({}, { kind: 'flows', flows: circle })).toThrow(/transfer 0 of 2 flows.* never begins/);
    expect(() => simulatePackets(parse({ network: star }))).toThrow(/no workload/);
    const late: TrafficInput = { kind: 'flows', flows: [{ from: 0, to: 1, bytes: 1, start: 1e4 }] };
    expect(() => run({}, late)).toThrow(/picoseconds, which end at 9,007 s/);
    const inFabric: TrafficInput = { kind: 'ep-dispatch', tokens: 8, experts: 8, inFabric: true };
    expect(() => run({}, inFabric)).toThrow(/inFabric.* run flows/);
  });
});
