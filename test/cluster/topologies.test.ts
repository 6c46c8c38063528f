import { describe, expect, it } from 'vitest';
import { buildNetwork } from '../../src/cluster/build.js';
import { createField, primePower } from '../../src/cluster/galois.js';
import {
  countCables,
  degreeOf,
  ENDPOINT_CABLE,
  FABRIC_CABLE,
  type Network,
  NVLINK,
  PCIE,
  SWITCH,
  verticesOf,
} from '../../src/cluster/graph.js';
import { validate } from '../../src/cluster/validate.js';
import { type NetworkInput, parseNetwork } from '../../src/spec/network.js';

const build = (topology: NetworkInput['topology'], more: object = {}): Network =>
  buildNetwork(parseNetwork({ topology, ...more }, 'test'));
const counts = (network: Network) => [
  network.nics.length,
  verticesOf(network, SWITCH).length,
  countCables(network, FABRIC_CABLE),
];
const checks = (topology: NetworkInput['topology'], more: object = {}) => {
  const spec = parseNetwork({ topology, ...more }, 'test');
  return validate(buildNetwork(spec), spec.topology);
};

describe('counts of ISCA table 3', () => {
  it.each([
    ['FT2', { kind: 'fat-tree', endpoints: 2048 }, [2048, 96, 2048]],
    ['MPFT', { kind: 'multi-plane-fat-tree', endpoints: 16384 }, [16384, 768, 16384]],
    ['FT3', { kind: 'fat-tree', layers: 3, endpoints: 65536 }, [65536, 5120, 131072]],
    ['DF', { kind: 'dragonfly', p: 16, a: 32, h: 16, groups: 511 }, [261632, 16352, 384272]],
  ] as const)('%s', (_, topology, expected) => {
    expect(counts(build(topology))).toEqual(expected);
  });
});

describe('Slim Fly', () => {
  // Orders of all three kinds, primes and powers: switches 2q², ports (3q - δ)/2, diameter two cables [SC'14 §II-B].
  it.each([
    [5, 7],
    [7, 11],
    [8, 12],
    [9, 13],
    [11, 17],
    [13, 19],
    [16, 24],
    [27, 41],
  ])('of order %i has 2q² switches of %i network ports and diameter two', (q, degree) => {
    const network = build({ kind: 'slim-fly', q, endpointsPerSwitch: 1 });
    const switches = verticesOf(network, SWITCH);
    expect(switches).toHaveLength(2 * q * q);
    expect(new Set(switches.map((v) => degreeOf(network, v) - 1))).toEqual(new Set([degree]));
    expect(validate(network, { kind: 'slim-fly', q, radix: 64 }).switchDiameter).toBe(3);
  });

  it('names the nearest orders where there is none', () => {
    expect(() => build({ kind: 'slim-fly', q: 28 })).toThrow(/28.*nearest are 27 and 29/);
    expect(() => build({ kind: 'slim-fly', q: 6 })).toThrow(/nearest are 5 and 7/);
    expect(() => build({ kind: 'slim-fly', q: 32 })).toThrow(/needs 72 ports/);
  });
});

describe('finite fields', () => {
  it.each([4, 5, 8, 9, 27, 49])('GF(%i) is a field', (q) => {
    const { add, multiply, primitive } = createField(q);
    const all = Array.from({ length: q }, (_, i) => i);
    for (const a of all) {
      expect(new Set(all.map((b) => add(a, b))).size).toBe(q);
      if (a > 0) expect(new Set(all.map((b) => multiply(a, b))).size).toBe(q);
      const [b, c] = [(a * 7 + 3) % q, (a * 5 + 1) % q];
      expect(multiply(a, add(b, c))).toBe(add(multiply(a, b), multiply(a, c)));
    }
    expect(multiply(primitive, 1)).toBe(primitive);
  });

  it('knows prime powers', () => {
    expect(primePower(27)).toEqual({ p: 3, n: 3 });
    expect(primePower(28)).toBeUndefined();
    expect(primePower(1)).toBeUndefined();
  });
});

describe('fat-trees', () => {
  it('are as small as the endpoints allow, tops joined evenly', () => {
    const network = build({ kind: 'fat-tree', endpoints: 256 });
    // 8 leaves of 32 uplinks fill 4 spines, with 8 cables between each pair.
    expect(counts(network)).toEqual([256, 12, 256]);
    expect(verticesOf(network, SWITCH).every((v) => degreeOf(network, v) === 64)).toBe(true);
  });

  it('block by their oversubscription', () => {
    const { bisectionShare } = checks({
      kind: 'fat-tree',
      endpoints: 12 * 16,
      radix: 16,
      oversubscription: 3,
    });
    expect(bisectionShare).toBeCloseTo(1 / 3, 12);
    expect(checks({ kind: 'fat-tree', endpoints: 1024, layers: 3, radix: 16 }).bisectionShare).toBe(1);
  });

  it('join rails at the top, or never', () => {
    const node = { gpus: 8, nics: 8 };
    const rails = build({ kind: 'multi-rail-fat-tree', endpoints: 2048 }, { node });
    expect(counts(rails)).toEqual([2048, 96, 2048]);
    // NIC 3 of nodes 0 and 31 share a leaf, node 32 begins the next group, NICs 3 and 4 differ.
    const leaf = (nic: number) => rails.to[rails.outgoing[rails.offsets[rails.nics[nic]!]!]! >> 1];
    expect(leaf(3)).toBe(leaf(31 * 8 + 3));
    expect(leaf(3)).not.toBe(leaf(32 * 8 + 3));
    expect(leaf(3)).not.toBe(leaf(4));
    for (const kind of ['multi-plane-fat-tree', 'rail-only'] as const) {
      const { checks: found } = checks({ kind, endpoints: 512 }, { node });
      expect(found.map(({ holds }) => holds)).toEqual([true, true, true, true]);
      expect(found[2]!.finding).toMatch(/8 planes/);
    }
  });

  it('give each NIC a port in every plane where asked', () => {
    const network = build({ kind: 'multi-plane-fat-tree', endpoints: 64, planes: 4, multiPort: true });
    expect(network.nics.every((nic) => degreeOf(network, nic) === 4)).toBe(true);
    expect(network.bytesPerSecond[network.cableCount - 1]).toBe(12.5e9);
  });
});

describe('nodes', () => {
  it('have NVLink, PCIe and a NIC to a GPU, and a storage network beside', () => {
    const topology = { kind: 'multi-plane-fat-tree', endpoints: 64 } as const;
    const network = build(topology, { node: { storageNic: true } });
    expect(network.endpoints).toHaveLength(64);
    expect([NVLINK, PCIE, ENDPOINT_CABLE].map((kind) => countCables(network, kind))).toEqual([64, 128, 72]);
    expect(checks(topology, { node: { storageNic: true } }).checks.every(({ holds }) => holds)).toBe(true);
  });
});

describe('validate', () => {
  it('finds switches with too many cables', () => {
    const { checks: found } = checks({
      kind: 'graph',
      switches: 2,
      cables: [
        [0, 1],
        [0, 1],
      ],
      endpoints: [0, 1],
      radix: 2,
    });
    expect(found[0]).toMatchObject({ name: 'radix', holds: false });
  });

  it('finds parts that do not reach each other', () => {
    const { checks: found } = checks({ kind: 'graph', switches: 3, cables: [[0, 1]], endpoints: [0, 1, 2] });
    expect(found.map(({ holds }) => holds)).toEqual([true, false, false, true]);
  });

  it('finds a cable between planes', () => {
    const spec = parseNetwork({ topology: { kind: 'rail-only', endpoints: 4, rails: 2 } }, 'test');
    const network = buildNetwork(spec);
    const [a, b] = verticesOf(network, SWITCH);
    const crossed = {
      ...network,
      cableCount: network.cableCount + 1,
      from: Int32Array.from([...network.from, a!]),
      to: Int32Array.from([...network.to, b!]),
      cableKind: Uint8Array.from([...network.cableKind, FABRIC_CABLE]),
      bytesPerSecond: Float64Array.from([...network.bytesPerSecond, 1]),
      ...withChannel(network, a!, b!),
    };
    expect(validate(crossed, spec.topology).checks[2]).toMatchObject({ holds: false });
  });
});

/** Adjacency with one more cable, number `cableCount`. */
function withChannel(network: Network, a: number, b: number) {
  const rows = Array.from({ length: network.vertexCount }, (_, v) => [
    ...network.outgoing.slice(network.offsets[v]!, network.offsets[v + 1]!),
  ]);
  rows[a]!.push(2 * network.cableCount);
  rows[b]!.push(2 * network.cableCount + 1);
  const offsets = Int32Array.from([0, ...rows.map((row) => row.length)]);
  for (let v = 0; v < rows.length; v++) offsets[v + 1]! += offsets[v]!;
  return { offsets, outgoing: Int32Array.from(rows.flat()) };
}

describe('impossible parameters', () => {
  it('are near to possible ones, which messages name', () => {
    expect(() => build({ kind: 'fat-tree', endpoints: 64, oversubscription: 2.5 })).toThrow(
      /2.5556 and 2.3684/,
    );
    // As the message has it: 46 ports down, 18 up.
    expect(() => build({ kind: 'fat-tree', endpoints: 64, oversubscription: 2.5556 })).not.toThrow();
    expect(() => build({ kind: 'dragonfly', p: 1, a: 8, h: 7, unbalanced: true })).not.toThrow();
  });

  it.each([
    [{ kind: 'fat-tree', endpoints: 64, radix: 15 }, /15 is odd.*14 or 16/],
    [{ kind: 'fat-tree', endpoints: 2049 }, /holds 2048, not 2049; give layers 3/],
    [{ kind: 'fat-tree', endpoints: 64, oversubscription: 2 }, /splits 64 ports unevenly/],
    [{ kind: 'multi-plane-fat-tree', endpoints: 100 }, /8 planes do not divide 100 endpoints.*96 and 104/],
    [{ kind: 'rail-only', endpoints: 520 }, /8 rails hold 512, not 520/],
    [{ kind: 'dragonfly', p: 16, a: 32, h: 32 }, /79 ports a switch, and it has 64/],
    [{ kind: 'dragonfly', p: 2, a: 4, h: 2, groups: 10 }, /give 9 groups or fewer/],
    [{ kind: 'dragonfly', p: 1, a: 8, h: 7 }, /is not balanced.*nearest is p = 4, a = 8, h = 4/],
    [{ kind: 'slim-fly', q: 53 }, /needs 119 ports.*the largest order that fits is 27/],
    [{ kind: 'star', endpoints: 65 }, /holds no 65/],
    [{ kind: 'graph', switches: 2, cables: [[0, 2]], endpoints: [0] }, /no switch 2/],
    [{ kind: 'torus', dimensions: [4, 4], radix: 4 }, /would need 5 ports/],
  ] as const)('%j', (topology, message) => {
    expect(() => build(topology as unknown as NetworkInput['topology'])).toThrow(message);
  });

  it('names unknown fields and values that are none', () => {
    expect(() => build({ kind: 'star', endpoints: 2, planes: 3 } as never)).toThrow(/unknown field "planes"/);
    expect(() => build({ kind: 'star', endpoints: 2 }, { endpointGbps: Number.NaN })).toThrow(/endpointGbps/);
    expect(() => build({ kind: 'star', endpoints: 2 }, { endpointGbps: -1 })).toThrow(/endpointGbps/);
    expect(() => build({ kind: 'multi-plane-fat-tree', endpoints: 64 }, { node: { nics: 4 } })).toThrow(
      /4 NICs a node do not divide among 8 planes/,
    );
  });
});
