import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { buildNetwork } from '../../src/cluster/build.js';
import { NIC, tailOf } from '../../src/cluster/graph.js';
import { runWithOutages } from '../../src/cluster/outages.js';
import { placesOf, simulate, workloadOf } from '../../src/cluster/simulate.js';
import { Random } from '../../src/numerics/random.js';
import type { NetworkInput } from '../../src/spec/network.js';
import { parseScenario, type ScenarioInput, type TrafficInput } from '../../src/spec/scenario.js';

/** 8 bytes/s a cable; nodes of two GPUs on two planes. */
const network: NetworkInput = {
  topology: { kind: 'multi-plane-fat-tree', endpoints: 16, planes: 2 },
  node: { gpus: 2, nics: 2 },
  endpointGbps: 8e-9 * 8,
  fabricGbps: 8e-9 * 8,
  latency: 'ideal',
};
const flows: TrafficInput = {
  kind: 'flows',
  flows: [
    { from: 0, to: 2, bytes: 80 },
    { from: 1, to: 3, bytes: 80 },
  ],
};
const run = (faults: ScenarioInput['faults'], workload: TrafficInput = flows) =>
  simulate(
    parseScenario(
      { name: 't', network, workload: [workload], faults, routing: { reroutingSeconds: 1 } },
      't',
    ),
  );
/** NVLink and PCIe of a node are a thousand million times as fast and round the times that much. */
const DIGITS = 7;

describe('faults at a time', () => {
  it('stop flows until routes change, which then share what is left', () => {
    // Plane 1 breaks at 4: flow 1 stands still until 5, then both have half a NIC; flow 0 ends at 15, flow 1 alone at 16.
    const { seconds, moments, pieces } = run([{ kind: 'plane', index: 1, at: 4 }]);
    expect(seconds).toBeCloseTo(16, DIGITS);
    expect(pieces[0]!.flowSeconds.least).toBeCloseTo(15, DIGITS);
    expect(moments).toEqual([
      { seconds: 0, event: 'begin', stalled: 0 },
      { seconds: 4, event: 'plane 1 breaks', stalled: 1 },
      { seconds: 5, event: 'routes avoid plane 1', stalled: 0 },
    ]);
  });

  it('end with repair, a rerouting delay later', () => {
    // From 5 to 8 both on plane 0; 28 and 36 bytes are left then for a plane each.
    expect(run([{ kind: 'plane', index: 1, at: 4, until: 7 }]).seconds).toBeCloseTo(12.5, DIGITS);
    expect(run([{ kind: 'port', index: 3, at: 4, until: 7 }]).seconds).toBeCloseTo(12.5, DIGITS);
    expect(run([{ kind: 'plane', index: 1, until: 7 }]).seconds).toBeCloseTo(14, DIGITS);
  });

  it('of what cannot be gone around are waited for, or named where they last', () => {
    expect(run([{ kind: 'node', index: 1, at: 2, until: 4 }]).seconds).toBeCloseTo(13, DIGITS);
    expect(() => run([{ kind: 'node', index: 1, at: 2 }])).toThrow(/endpoint 2 is broken/);
    expect(() => run([{ kind: 'plane', index: 1, at: 4, until: 3 }])).toThrow(
      /faults.0.until: a fault ends after/,
    );
  });

  it('leave everything as it is where nothing passes, whenever they come', () => {
    const pieces: TrafficInput[] = [
      { kind: 'all-reduce', bytes: 64, ranks: 8, algorithm: 'hierarchical' },
      { kind: 'pipeline', bytes: 8, microBatches: 3, stageSeconds: 0.5, ranks: 4 },
      { kind: 'all-to-all', bytes: 64, ranks: 8, spread: 0.5 },
    ];
    for (const piece of pieces) {
      const whole = run([], piece);
      const cut = run([{ kind: 'node', index: 7, at: 0.7, until: 1.9 }], piece);
      expect(cut.moments!.length, piece.kind).toBeGreaterThan(2);
      // Times are summed up from the cuts: some roundings.
      expect(cut.seconds / whole.seconds, piece.kind).toBeCloseTo(1, 12);
      expect(cut.pieces[0]!.flowSeconds.median / whole.pieces[0]!.flowSeconds.median).toBeCloseTo(1, 9);
    }
  });

  it('lose no bytes and count none twice', () => {
    const tree: NetworkInput = { ...network, topology: { kind: 'fat-tree', endpoints: 32, radix: 8 } };
    delete tree.node;
    fc.assert(
      fc.property(fc.nat(), (seed) => {
        const random = new Random(seed);
        const faults = Array.from({ length: 3 }, () => {
          const at = 6 * random.uniform();
          // Spines, so that there is another way, and cables of NICs, which are waited for.
          return random.below(2)
            ? { kind: 'switch' as const, index: 8 + random.below(3), at, until: at + 4 * random.uniform() }
            : { kind: 'port' as const, index: random.below(32), at, until: at + 4 * random.uniform() };
        });
        const mode = (['static', 'ecmp', 'adaptive', 'spray'] as const)[random.below(4)]!;
        const scenario = parseScenario(
          {
            name: 't',
            network: tree,
            faults,
            routing: { mode, reroutingSeconds: 0.3 },
            workload: [{ kind: 'permutation', bytes: 40, seed }],
          },
          't',
        );
        const built = buildNetwork(scenario.network);
        const { transfers } = workloadOf(scenario.workload![0]!, placesOf(built, scenario));
        const { times, passed } = runWithOutages(built, scenario, transfers, { nameOf: String });
        let sent = 0;
        for (let c = 0; c < passed.length; c++) if (built.kind[tailOf(built, c)] === NIC) sent += passed[c]!;
        expect(sent / (32 * 40)).toBeCloseTo(1, 9);
        expect(times.end.every((end, f) => end >= times.begin[f]! + 5 - 1e-9)).toBe(true);
      }),
      { numRuns: 30 },
    );
  });
});
