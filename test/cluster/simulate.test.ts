import { describe, expect, it } from 'vitest';
import { buildNetwork } from '../../src/cluster/build.js';
import { headOf, NVSWITCH, SWITCH, tailOf } from '../../src/cluster/graph.js';
import { Router } from '../../src/cluster/routing.js';
import { simulate } from '../../src/cluster/simulate.js';
import type { NetworkInput } from '../../src/spec/network.js';
import { parseScenario, type ScenarioInput, type TrafficInput } from '../../src/spec/scenario.js';

/** A fabric without latencies, 8 bytes/s a cable. */
const IDEAL = { endpointGbps: 8e-9 * 8, fabricGbps: 8e-9 * 8, latency: 'ideal' } as const;
const scenario = (network: NetworkInput, workload: TrafficInput, more: Partial<ScenarioInput> = {}) =>
  parseScenario({ name: 'test', network, workload: [workload], ...more }, 'test');
const run = (network: NetworkInput, workload: TrafficInput, more: Partial<ScenarioInput> = {}) =>
  simulate(scenario(network, workload, more));
const star = (endpoints: number): NetworkInput => ({ topology: { kind: 'star', endpoints }, ...IDEAL });

describe('collectives on an idle network take their alpha-beta times', () => {
  const [n, bytes, beta] = [8, 64, 1 / 8];
  // With latency alpha on the two cables of a star: 2 m · 50 ns a metre each.
  const latency = { hostNs: 0, switchNs: 300, cableNsPerMetre: 50, endpointMetres: 2 };
  const alpha = 2 * 100e-9 + 300e-9;
  const lagging = { ...star(n), latency };
  const seconds = (workload: TrafficInput) => run(lagging, workload).seconds;

  it.each([
    ['all-to-all', { kind: 'all-to-all', bytes }, alpha + ((n - 1) / n) * bytes * beta],
    ['ring all-gather', { kind: 'all-gather', bytes }, (n - 1) * (alpha + (bytes / n) * beta)],
    ['ring reduce-scatter', { kind: 'reduce-scatter', bytes }, (n - 1) * (alpha + (bytes / n) * beta)],
    ['ring all-reduce', { kind: 'all-reduce', bytes }, 2 * (n - 1) * (alpha + (bytes / n) * beta)],
    ['tree all-reduce', { kind: 'all-reduce', bytes, algorithm: 'tree' }, 2 * 3 * (alpha + bytes * beta)],
    ['incast', { kind: 'incast', bytes, sources: 7 }, alpha + 7 * bytes * beta],
    ['permutation', { kind: 'permutation', bytes }, alpha + bytes * beta],
    [
      'pipeline',
      { kind: 'pipeline', bytes, microBatches: 5, stageSeconds: 2 },
      (7 + 4) * (2 + alpha + bytes * beta),
    ],
  ] as [string, TrafficInput, number][])('%s', (_, workload, expected) => {
    // The last few roundings of sums over steps.
    expect(seconds(workload) / expected).toBeCloseTo(1, 12);
  });

  it('hierarchical all-reduce: in the node, across, in the node', () => {
    const node = { gpus: 4, nics: 4, nvlinkGBps: 32e-9, nvlinkEfficiency: 1, pcieGBps: 1 };
    const network: NetworkInput = {
      topology: { kind: 'multi-plane-fat-tree', endpoints: 8, planes: 4 },
      node,
      ...IDEAL,
    };
    const { seconds: all } = run(network, { kind: 'all-reduce', bytes, algorithm: 'hierarchical' });
    // Rings of 4 over NVLink at 32 bytes/s with quarters, twice; then rings of 2 over NICs at 8 bytes/s with halves of quarters.
    expect(all).toBeCloseTo(2 * 3 * (bytes / 4 / 32) + 2 * (bytes / 8 / 8), 12);
  });
});

describe('routing', () => {
  const tree = { kind: 'fat-tree', endpoints: 32, radix: 8 } as const;
  const router = (
    mode: 'static' | 'ecmp' | 'adaptive' | 'spray' | 'valiant',
    topology: NetworkInput['topology'] = tree,
    seed = 0,
  ) => {
    const spec = parseScenario({ name: 't', network: { topology }, routing: { mode, seed } }, 't');
    return new Router(buildNetwork(spec.network), spec.routing);
  };

  it('goes over connected channels, up and down, at the length of the shortest way', () => {
    for (const mode of ['static', 'ecmp', 'adaptive'] as const) {
      const { network } = router(mode);
      const { channels } = router(mode).route(0, 31);
      expect(channels).toHaveLength(4);
      expect(tailOf(network, channels[0]!)).toBe(network.endpoints[0]);
      for (let i = 1; i < 4; i++)
        expect(tailOf(network, channels[i]!)).toBe(headOf(network, channels[i - 1]!));
      expect(headOf(network, channels[3]!)).toBe(network.endpoints[31]);
      expect(router(mode).route(0, 1).channels).toHaveLength(2);
    }
  });

  it('spreads destinations of a leaf over all ways when static, without conflict in a shift', () => {
    const shift = (mode: 'static' | 'ecmp') =>
      run(
        { topology: tree, ...IDEAL },
        {
          kind: 'flows',
          flows: Array.from({ length: 32 }, (_, from) => ({ from, to: (from + 4) % 32, bytes: 8 })),
        },
        { routing: { mode } },
      ).seconds;
    expect(shift('static')).toBe(1);
    expect(shift('ecmp')).toBeGreaterThan(1);
  });

  it('hashes by seed, and sprays over all ways evenly', () => {
    const way = (seed: number) => JSON.stringify(router('ecmp', tree, seed).route(0, 31).channels);
    expect(way(1)).toBe(way(1));
    expect(new Set(Array.from({ length: 20 }, (_, seed) => way(seed))).size).toBe(4);
    const { channels, shares } = router('spray').route(0, 31);
    expect(channels).toHaveLength(2 + 2 * 4);
    expect(shares!.reduce((sum, share) => sum + share, 0)).toBe(4);
  });

  it('reaches everything on Slim Fly, Dragonfly and torus, also over a random switch', () => {
    const topologies: NetworkInput['topology'][] = [
      { kind: 'slim-fly', q: 5 },
      { kind: 'dragonfly', p: 2, a: 4, h: 2 },
      { kind: 'torus', dimensions: [3, 4] },
    ];
    for (const topology of topologies) {
      for (const mode of ['ecmp', 'valiant'] as const) {
        const way = router(mode, topology);
        for (let to = 1; to < way.network.endpoints.length; to += 3) {
          const { channels } = way.route(0, to);
          expect(headOf(way.network, channels.at(-1)!)).toBe(way.network.endpoints[to]);
        }
      }
    }
  });

  it('changes planes over NVLink before the fabric with PXN, behind it without', () => {
    const kinds = (pxn: boolean) => {
      const spec = parseScenario(
        {
          name: 't',
          network: { topology: { kind: 'multi-plane-fat-tree', endpoints: 16 }, node: {} },
          routing: { pxn },
        },
        't',
      );
      const network = buildNetwork(spec.network);
      const { channels } = new Router(network, spec.routing).route(0, 8 + 3);
      return channels.map((channel) => network.kind[headOf(network, channel)]);
    };
    expect(kinds(true).indexOf(NVSWITCH)).toBe(0);
    expect(kinds(false).indexOf(NVSWITCH)).toBe(4);
    expect(kinds(true).filter((kind) => kind === SWITCH)).toHaveLength(1);
  });
});

describe('faults', () => {
  const network: NetworkInput = {
    topology: { kind: 'multi-plane-fat-tree', endpoints: 16, planes: 2 },
    node: { gpus: 2, nics: 2 },
    ...IDEAL,
  };
  const workload: TrafficInput = {
    kind: 'flows',
    flows: [
      { from: 0, to: 2, bytes: 8 },
      { from: 1, to: 3, bytes: 8 },
    ],
  };

  it('send traffic over what is left', () => {
    expect(run(network, workload).seconds).toBeCloseTo(1, 8);
    // Both flows share the other plane.
    expect(run(network, workload, { faults: [{ kind: 'plane', index: 1 }] }).seconds).toBeCloseTo(2, 8);
    expect(run(network, workload, { faults: [{ kind: 'nic', index: 3 }] }).seconds).toBeCloseTo(2, 8);
    const tree: NetworkInput = { topology: { kind: 'fat-tree', endpoints: 32, radix: 8 }, ...IDEAL };
    const spine = { kind: 'switch', index: 8 } as const;
    expect(
      run(tree, { kind: 'permutation', bytes: 8, seed: 1 }, { faults: [spine] }).seconds,
    ).toBeGreaterThan(1);
  });

  it('that cut the network, or name nothing, are errors', () => {
    const cut = [0, 1].map((index) => ({ kind: 'plane' as const, index }));
    expect(() => run(network, workload, { faults: cut })).toThrow(/no working port|no way/);
    expect(() => run(network, workload, { faults: [{ kind: 'node', index: 0 }] })).toThrow(
      /endpoint 0 is broken/,
    );
    expect(() => run(network, workload, { faults: [{ kind: 'switch', index: 9 }] })).toThrow(
      /no switch 9; the 2 .* so the last is 1/,
    );
  });
});

describe('scenarios', () => {
  it('name what is wrong', () => {
    expect(() => run(star(4), { kind: 'incast', bytes: 1, sources: 4 })).toThrow(
      /5 ranks.*last is 3; give 4 or fewer/,
    );
    expect(() => run(star(4), { kind: 'all-to-all', bytes: -1 })).toThrow(/field workload.0.bytes/);
    expect(() => run(star(4), { kind: 'all-gather', bytes: 1, groupSize: 3 })).toThrow(/do not fill 4 ranks/);
    expect(() => run(star(4), { kind: 'all-gather', bytes: 1, algorithm: 'tree' })).toThrow(/goes in a ring/);
    expect(() => run(star(4), { kind: 'flows', flows: [{ from: 0, to: 4, bytes: 1 }] })).toThrow(
      /no endpoint 4/,
    );
    expect(() => simulate(parseScenario({ name: 'idle', network: star(4) }, 't'))).toThrow(/has no workload/);
    expect(() => run(star(4), { kind: 'broadcast', bytes: 1 } as never)).toThrow(/workload.0.kind/);
    expect(() => run(star(4), { kind: 'incast', bytes: 1, source: 1, sources: 1 } as never)).toThrow(
      /unknown field "source" in workload.0.*did you mean "sources"/,
    );
  });

  it('tell which transfer waits in vain', () => {
    const flows = [
      { from: 0, to: 1, bytes: 1, after: [1] },
      { from: 1, to: 0, bytes: 1, after: [0] },
    ];
    expect(() => run(star(2), { kind: 'flows', flows })).toThrow(
      /transfer 0 of 2 flows \(endpoint 0 to 1\) never begins: it waits for transfer 1 .*, which waits for transfer 0/,
    );
  });
});
