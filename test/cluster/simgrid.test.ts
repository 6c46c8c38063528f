import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { runFlows } from '../../src/cluster/flow-engine.js';
import { FlowList } from '../../src/cluster/flows.js';

/** Made by scripts/goldens/simgrid.mjs with SimGrid's plain max-min model (factors 1, no cross-traffic). */
interface Golden {
  simgrid: string;
  cases: {
    name: string;
    /** Bytes per second, seconds. */
    links: [capacity: number, latency: number][];
    flows: [start: number, bytes: number, path: number[]][];
    /** Completion times, seconds. */
    ends: number[];
  }[];
}

const golden = JSON.parse(
  readFileSync(new URL('../goldens/cluster/simgrid.json', import.meta.url), 'utf8'),
) as Golden;

describe(`completion times of SimGrid ${golden.simgrid}`, () => {
  it('are there for at least 30 cases', () => {
    expect(golden.cases.length).toBeGreaterThanOrEqual(30);
  });

  it.each(golden.cases.map((one, i) => [`${i}: ${one.name}`, one] as const))(
    '%s',
    (_, { links, flows, ends }) => {
      const list = new FlowList(Float64Array.from(links, ([capacity]) => capacity));
      for (const [start, bytes, path] of flows) {
        list.add({ path, bytes, start, latency: path.reduce((sum, link) => sum + links[link]![1], 0) });
      }
      const { end } = runFlows(list.build());
      const worst = ends.reduce((most, time, flow) => Math.max(most, Math.abs(end[flow]! / time - 1)), 0);
      // Both are exact; SimGrid's solver and clock work to relative 1e-9.
      expect(worst).toBeLessThan(1e-6);
    },
  );
});
