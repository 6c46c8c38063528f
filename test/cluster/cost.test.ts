import { describe, expect, it } from 'vitest';
import { buildNetwork } from '../../src/cluster/build.js';
import { costOf } from '../../src/cluster/cost.js';
import { cableLengths } from '../../src/cluster/layout.js';
import { parseNetwork } from '../../src/spec/network.js';
import { PRICE_BOOKS, parsePrices } from '../../src/spec/prices.js';

const prices = parsePrices(
  {
    name: 'simple',
    source: 'test',
    switchBase: 100,
    switchPerPort: 10,
    switchWatts: 5,
    wattsPerPort: 1,
    electrical: { perGbps: 1, perGbpsMetre: 0.5 },
    electricalMetres: 3,
    optical: { perGbps: 2, perGbpsMetre: 0.1, watts: 7 },
    endpointsPerRack: 2,
  },
  'test',
);
const build = (json: object) => buildNetwork(parseNetwork(json, 'test'));

describe('cost of a network', () => {
  it('sums switches by radix and cables by length', () => {
    // Two leaves of two endpoints in racks (0, 0) and (1, 0), one spine between them, in the rack of the second.
    const network = build({
      topology: { kind: 'fat-tree', endpoints: 4, radix: 4 },
      fabricGbps: 10,
      endpointGbps: 10,
    });
    expect([...cableLengths(network, prices)]).toEqual([3, 3, 1, 1, 1, 1, 1, 1]);
    const cost = costOf(network, 4, prices);
    expect(cost).toMatchObject({
      endpoints: 4,
      switches: 3,
      links: 4,
      switchDollars: 3 * 140,
      switchWatts: 3 * 9,
    });
    // 3 m: 10 · (1 + 0.5 · 3); in the rack: 10 · (1 + 0.5).
    expect(cost.fabric).toMatchObject({ count: 4, optical: 0, dollars: 2 * 25 + 2 * 15 });
    expect(cost.endpointCables).toMatchObject({ count: 4, dollars: 60, watts: 0 });
    expect(cost.dollars).toBe(420 + 80 + 60);
  });

  it('takes fibre beyond the reach of copper', () => {
    const short = { ...prices, electricalMetres: 2 };
    const network = build({ topology: { kind: 'fat-tree', endpoints: 4, radix: 4 }, fabricGbps: 10 });
    const { fabric } = costOf(network, 4, short);
    expect(fabric).toMatchObject({ optical: 2, watts: 14, dollars: 2 * 10 * (2 + 0.1 * 3) + 2 * 15 });
  });

  it('puts the rail leaves of real nodes away from their racks', () => {
    const topology = { kind: 'multi-plane-fat-tree', endpoints: 2048 } as const;
    const [bare, nodes] = [build({ topology }), build({ topology, node: {} })].map((network) =>
      costOf(network, 64, PRICE_BOOKS['isca-2025']),
    );
    expect(nodes!.endpointCables.meanMetres).toBeGreaterThan(2 * bare!.endpointCables.meanMetres);
    expect(nodes!.dollars).toBeGreaterThan(bare!.dollars);
  });

  it('names a wrong coefficient', () => {
    expect(() => parsePrices({ ...prices, electricalMetres: -1 }, 'p.json')).toThrow(
      /p.json: field electricalMetres/,
    );
    expect(() => parsePrices({ ...prices, fee: 1 }, 'p.json')).toThrow(/unknown field "fee"/);
  });
});
