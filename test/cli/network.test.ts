import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { fathom, fathomJson } from './run.js';

let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'fathom-network-'));
  file = path.join(folder, 'mine.json');
  writeFileSync(file, JSON.stringify(mine));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** A scenario of one's own: four nodes on two planes, one piece of traffic. */
const mine = {
  name: 'mine',
  network: {
    topology: { kind: 'multi-plane-fat-tree', endpoints: 8, planes: 2, radix: 4 },
    node: { gpus: 2, nics: 2 },
  },
  workload: [{ kind: 'all-to-all', bytes: 1e6 }],
};

describe('fathom network', () => {
  it('describes, prices and simulates a scenario of one’s own', async () => {
    const svg = path.join(folder, 'mine.svg');
    const described = await fathomJson(['network', 'describe', file, '--svg', svg]);
    expect(described).toMatchObject({ parts: { endpoints: 8, nodes: 4, planes: 2 }, bisectionShare: 1 });
    expect(readFileSync(svg, 'utf8')).toMatch(/^<svg .*[\s\S]*4 nodes, 8 GPUs/);
    expect(await fathomJson(['network', 'cost', file])).toMatchObject({
      endpoints: 8,
      switches: 6,
      allToAllShare: 1,
    });
    const { code, stdout } = await fathom(['network', 'simulate', file, '--mode', 'spray']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/mine: 8 endpoints, routing spray[\s\S]*all-to-all over 8/);
  });

  it('runs every packet where it is asked to', async () => {
    writeFileSync(
      file,
      JSON.stringify({ ...mine, packet: { flowControl: 'pfc', congestionControl: 'dcqcn' } }),
    );
    const run = ['network', 'simulate', file, '--engine', 'packet', '--mode', 'spray'];
    const { code, stdout } = await fathom(run);
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /routing spray, 32 flows packet by packet, pfc[\s\S]*all-to-all over 8[\s\S]*packets +2.47 k of up to 4096 bytes[\s\S]*pauses[\s\S]*dcqcn/,
    );
    expect((await fathom([...run, '--resolution', '0.01'])).code).toBe(2);
    const both = await fathom(['network', 'simulate', file, '--engine', 'both']);
    expect(both.stdout).toMatch(
      /time over by flows\n[\s\S]*by flows .* 0.00 %\n *by packets .*all-to-all.* %/,
    );
  });

  it('compares scenarios, and topologies of one size by cost', async () => {
    const { stdout } = await fathom(['network', 'compare', file, file]);
    expect(stdout).toMatch(/time over mine[\s\S]*0.00 %/);
    const { rows } = (await fathomJson(['network', 'cost', '--endpoints', '256'])) as {
      rows: { networks: { name: string; cost: { dollarsPerEndpoint: number } | null }[] }[];
    };
    expect(rows[0]!.networks.map(({ name }) => name)).toEqual(['FT2', 'MPFT', 'FT3', 'SF', 'DF']);
    expect(rows[0]!.networks.every(({ cost }) => cost!.dollarsPerEndpoint > 0)).toBe(true);
  });

  it('draws how busy links were, and curves over sizes', async () => {
    const heat = path.join(folder, 'heat.svg');
    expect((await fathom(['network', 'simulate', file, '--heat', heat])).code).toBe(0);
    expect(readFileSync(heat, 'utf8')).toMatch(/NICs, out: mean[\s\S]*layer 0 to layer 1: mean/);
    const args = ['network', 'curve', file, file, '--from', '64', '--to', '1KiB', '--out', folder];
    const { curves } = (await fathomJson(args)) as {
      curves: { points: { bytes: number; seconds: number }[] }[];
    };
    expect(curves.map(({ points }) => points.map(({ bytes }) => bytes))).toEqual([
      [64, 256, 1024],
      [64, 256, 1024],
    ]);
    expect(readFileSync(path.join(folder, 'latency.svg'), 'utf8')).toMatch(/64 B[\s\S]*1 KiB/);
    expect((await fathom(['network', 'curve', file, '--from', '2KiB', '--to', '64'])).stderr).toMatch(
      /exchange/,
    );
    expect((await fathom(['network', 'curve', 'deepep-64'])).stderr).toMatch(
      /no traffic whose size can vary/,
    );
  });

  it('runs the example in which a plane fails', async () => {
    const example = 'examples/network-faults.json';
    const { stdout } = await fathom(['network', 'simulate', example]);
    expect(stdout).toMatch(/plane 3 breaks +\d+\n.*routes avoid plane 3[\s\S]*plane 3 works again/);
    const packets = await fathom(['network', 'simulate', example, '--engine', 'packet']);
    expect(packets.stderr).toMatch(/packets know faults from the beginning only/);
  });

  it('runs the example of 30 NICs that send to one, packet by packet', async () => {
    const { pieces } = (await fathomJson([
      'network',
      'simulate',
      'examples/network-incast.json',
      '--engine',
      'packet',
    ])) as { pieces: { seconds: number }[] };
    // The table of docs/network.md: times over those of the cable alone.
    const alone = 2 ** 23 / 50e9;
    expect(pieces.map(({ seconds }) => Number((seconds / alone).toFixed(1)))).toEqual([30.2, 1.1]);
  });

  it('folds, and weighs failures', async () => {
    const args = ['network', 'simulate', 'h800-mpft', '--fold'];
    expect((await fathom(args)).stderr).toMatch(/cannot be folded: its workload must be one all-to-all/);
    const { parts } = (await fathomJson(['network', 'failures', file])) as { parts: { part: string }[] };
    expect(parts.map(({ part }) => part)).toContain('NICs');
    expect((await fathom(['network', 'failures', file])).stdout).toMatch(/goodput +\d/);
  });

  it('is measured by fathom bench network', async () => {
    const out = path.join(folder, 'network.json');
    const { cases } = (await fathomJson(['bench', 'network', '--only', '256', '--out', out])) as {
      cases: object[];
    };
    expect(cases).toMatchObject([{ name: '256 NICs, equal sizes', flows: 256 * 255 }]);
    expect(JSON.parse(readFileSync(out, 'utf8'))).toMatchObject({
      cases,
      packets: [],
      machine: { node: process.version },
    });
  });

  it('names what is wrong in one line', async () => {
    const failure = async (...args: string[]) => {
      const { code, stderr } = await fathom(['network', ...args]);
      return `${code} ${stderr}`;
    };
    expect(await failure('describe', 'nowhere')).toMatch(
      /^1 .*there is no scenario nowhere: name a file, or one of h800-mpft/,
    );
    writeFileSync(file, JSON.stringify({ ...mine, speed: 1 }));
    expect(await failure('simulate', file)).toMatch(/^1 .*mine.json: unknown field "speed"/);
    expect(await failure('simulate', 'ft2')).toMatch(/^1 .*ft2 has no workload/);
    expect(await failure('compare', 'ft2')).toMatch(/^2 .*two or more scenarios/);
  });
});
