import { describe, expect, it } from 'vitest';
import { buildNetwork } from '../../src/cluster/build.js';
import { drawingOf, heatOf } from '../../src/cluster/drawing.js';
import { heatColour } from '../../src/report/heat-svg.js';
import { topologySvg } from '../../src/report/topology-svg.js';
import { type NetworkInput, parseNetwork } from '../../src/spec/network.js';

const build = (network: NetworkInput) => buildNetwork(parseNetwork(network, 't'));
const planes = (endpoints: number, more: object = {}) =>
  build({
    topology: { kind: 'multi-plane-fat-tree', endpoints, planes: 2, radix: 4 },
    node: { gpus: 2, nics: 2, ...more },
  });

describe('drawings', () => {
  it('have nodes below and every cable of the compute network once', () => {
    const { rows, bundles, note } = drawingOf(planes(8, { storageNic: true }));
    expect(rows.map(({ boxes }) => boxes.length)).toEqual([4, 4, 2]);
    expect(rows[0]!.label).toBe('4 nodes, 8 GPUs');
    expect(rows[0]!.boxes[0]!.parts).toEqual([0, 1]);
    // 8 NICs; 8 uplinks as pairs of parallel ones.
    expect(bundles.filter(({ from }) => from.row === 0)).toHaveLength(8);
    expect(bundles.filter(({ from }) => from.row > 0).map(({ cables }) => cables)).toEqual([2, 2, 2, 2]);
    expect(note).toBe('');
  });

  it('group and thin out what is too much, and say so', () => {
    const drawing = drawingOf(build({ topology: { kind: 'dragonfly', p: 8, a: 8, h: 8, unbalanced: true } }));
    expect(drawing.rows.map(({ boxes }) => boxes.length)).toEqual([520, 520]);
    const large = drawingOf(build({ topology: { kind: 'dragonfly', p: 8, a: 16, h: 8 } }));
    expect(large.rows[1]!.label).toBe('2064 switches in 129 groups, layer 0');
    const huge = drawingOf(build({ topology: { kind: 'fat-tree', endpoints: 1024, layers: 3, radix: 16 } }));
    expect(topologySvg('t', huge)).toMatch(/^<svg[\s\S]*1024 endpoints/);
  });

  it('show how busy NICs and cables between switches were', () => {
    const network = planes(8);
    const use = Float64Array.from({ length: 2 * network.cableCount }, (_, c) => (c & 1 ? 0.25 : 0.75));
    const tables = heatOf(network, use);
    expect(tables.map(({ title }) => title)).toEqual([
      'NICs, out',
      'NICs, in',
      'layer 0 to layer 1',
      'layer 1 to layer 0',
    ]);
    // NICs' cables go from the NIC to the switch, and leaves' up.
    expect(tables[0]!.cells.flat()).toEqual(new Array(8).fill(0.75));
    expect(tables[1]!.cells.flat()).toEqual(new Array(8).fill(0.25));
    expect(tables[2]!.cells).toEqual([
      [0.75, null],
      [0.75, null],
      [null, 0.75],
      [null, 0.75],
    ]);
    expect([heatColour(-1), heatColour(0.5), heatColour(2)]).toEqual(['#440154', '#21918c', '#fde725']);
  });
});
