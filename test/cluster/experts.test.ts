import { describe, expect, it } from 'vitest';
import { buildNetwork } from '../../src/cluster/build.js';
import { countTokens, tokenBytesOf } from '../../src/cluster/experts.js';
import { choicesOf, type ExpertTraffic } from '../../src/cluster/gate.js';
import { FABRIC_CABLE } from '../../src/cluster/graph.js';
import { Router } from '../../src/cluster/routing.js';
import { simulate } from '../../src/cluster/simulate.js';
import type { NetworkInput } from '../../src/spec/network.js';
import { parseScenario } from '../../src/spec/scenario.js';

/** A fabric without latencies, 8 bytes/s a cable. */
const IDEAL = { endpointGbps: 8e-9 * 8, fabricGbps: 8e-9 * 8, latency: 'ideal' } as const;
const STAR: NetworkInput = { topology: { kind: 'star', endpoints: 4 }, ...IDEAL };

const scenario = (more: object, network = STAR) =>
  parseScenario(
    { name: 't', network, workload: [{ kind: 'ep-dispatch', experts: 8, topK: 2, ...more }] },
    't',
  );
const traffic = (more: object) => scenario(more).workload![0] as ExpertTraffic;
const counts = (more: object, ranks: number, perNode: number) =>
  countTokens(choicesOf(traffic(more), ranks, perNode), ranks, perNode);

describe('tokens between ranks', () => {
  it('go once to a node and once to a rank', () => {
    // Four ranks on two nodes, two experts each. Rank 0's token: both experts of rank 2; rank 1's: ranks 2 and 3; ...
    const choices = [
      [4, 5],
      [4, 6],
      [0, 4],
      [7, 6],
    ];
    const { toNode, toRank, sets, imbalance } = counts({ choices }, 4, 2);
    expect([...toNode]).toEqual([0, 1, 0, 1, 1, 1, 0, 1]);
    expect([...toRank]).toEqual([0, 0, 1, 0, 0, 0, 1, 1, 1, 0, 1, 0, 0, 0, 0, 1]);
    expect(sets.map((of) => [...of.values()])).toEqual([
      [{ nodes: [1], tokens: 1 }],
      [{ nodes: [1], tokens: 1 }],
      [{ nodes: [0], tokens: 1 }],
      [],
    ]);
    expect(imbalance).toBe(3);
    // Asked for more tokens than there are choices, they are used again.
    expect([...counts({ choices, tokens: 2 }, 4, 2).toNode]).toEqual([0, 2, 1, 2, 0, 2, 1, 2]);
  });

  it('keep to the node limit, and to popularity', () => {
    const limited = counts({ tokens: 100, nodeLimit: 1, experts: 16, topK: 4 }, 8, 2);
    for (let rank = 0; rank < 8; rank++) {
      expect(limited.toNode.subarray(rank * 4, rank * 4 + 4).reduce((sum, n) => sum + n, 0)).toBe(100);
    }
    const even = counts({ tokens: 500 }, 4, 2).imbalance;
    expect(even).toBeLessThan(1.1);
    expect(counts({ tokens: 500, skew: 1 }, 4, 2).imbalance).toBeGreaterThan(1.5);
  });

  it('take the bytes of their format, scales included', () => {
    expect(tokenBytesOf(traffic({}))).toBe(7168 * (1 + 4 / 128));
    expect(tokenBytesOf(traffic({ kind: 'ep-combine' }))).toBe(7168 * 2);
    expect(tokenBytesOf(traffic({ format: 'e4m3@none', hidden: 8 }))).toBe(8);
    expect(tokenBytesOf(traffic({ format: 'logfmt10', hidden: 128 }))).toBeGreaterThan(128 * 1.25);
    expect(() => tokenBytesOf(traffic({ format: 'e4m4' }))).toThrow(/workload.format.*e4m4/);
  });

  it('name what does not fit', () => {
    expect(() => counts({ experts: 6 }, 4, 2)).toThrow(/6 experts do not divide.*nearest are 4 and 8/);
    expect(() => counts({ choices: [[8]] }, 4, 2)).toThrow(/choices.0: 8 names an expert/);
    expect(() => counts({ topK: 9, tokens: 1 }, 4, 2)).toThrow(/9 experts of 8/);
    expect(() => counts({ topK: 5, nodeLimit: 1 }, 4, 2)).toThrow(/give 4 or fewer/);
    expect(() => counts({ capture: { run: 'runs/x' } }, 4, 2)).toThrow(/read from their run/);
  });
});

describe('copies and sums in the fabric', () => {
  // Rank 0's token goes to all others, theirs stay.
  const choices = [[2, 4, 6], [2], [4], [6]];
  const seconds = (more: object) =>
    simulate(scenario({ choices, format: 'e4m3@none', hidden: 8, ...more })).seconds;

  it('spare the sender of a dispatch and the receiver of a combine all but one', () => {
    expect(seconds({})).toBeCloseTo(3, 12);
    expect(seconds({ inFabric: true })).toBeCloseTo(1, 12);
    expect(seconds({ kind: 'ep-combine', format: 'e4m3@none' })).toBeCloseTo(3, 12);
    expect(seconds({ kind: 'ep-combine', format: 'e4m3@none', inFabric: true })).toBeCloseTo(1, 12);
  });

  it('are made as late as can be, one tree a message', () => {
    const network: NetworkInput = { topology: { kind: 'fat-tree', endpoints: 32, radix: 8 }, ...IDEAL };
    for (const mode of ['static', 'ecmp', 'adaptive', 'spray'] as const) {
      const { network: spec, routing } = parseScenario({ name: 't', network, routing: { mode } }, 't');
      const built = buildNetwork(spec);
      // Three quarters to two endpoints of one other leaf, a quarter to the first of them and to one of a third leaf.
      const parts = [
        { ends: [8, 9], bytes: 3 },
        { ends: [8, 12], bytes: 1 },
      ];
      const { channels, shares } = new Router(built, routing).tree(0, { kind: 'multicast', parts });
      const fabric = channels.flatMap((c, i) =>
        built.cableKind[c >> 1] === FABRIC_CABLE ? [shares![i]!] : [],
      );
      // Once up, once down to the second leaf, a quarter down to the third.
      expect(
        fabric.reduce((sum, share) => sum + share, 0),
        mode,
      ).toBeCloseTo(2.25, 12);
      const back = new Router(built, routing).tree(0, { kind: 'reduce', parts });
      expect(back.channels).toEqual(channels.map((c) => c ^ 1));
    }
  });
});
