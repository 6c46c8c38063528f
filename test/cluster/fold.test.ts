import { describe, expect, it } from 'vitest';
import { simulate } from '../../src/cluster/simulate.js';
import { parseScenario, type ScenarioInput } from '../../src/spec/scenario.js';

/** `planes` GPUs a node; `radix` so small that traffic crosses leaves. */
const scenario = (endpoints: number, more: Partial<ScenarioInput> = {}, layers: 2 | 3 = 2) =>
  parseScenario(
    {
      name: 'folded',
      network: {
        topology: { kind: 'multi-plane-fat-tree', endpoints, planes: 4, radix: 4, layers },
        node: { gpus: 4, nics: 4 },
      },
      workload: [{ kind: 'all-to-all', bytes: 1e8 }],
      ...more,
    },
    'test',
  );

describe('folding', () => {
  it.each([
    [16, 2],
    [32, 2],
    [64, 3],
  ] as const)('gives the times of every flow run by itself: %i GPUs, %i layers', (endpoints, layers) => {
    const one = scenario(endpoints, {}, layers);
    const [whole, folded] = [simulate(one), simulate(one, { fold: true })];
    expect(folded.flows).toBe(whole.flows);
    // The same sums in another order.
    expect(folded.seconds / whole.seconds).toBeCloseTo(1, 10);
    const [a, b] = [whole.pieces[0]!.flowSeconds, folded.pieces[0]!.flowSeconds];
    for (const key of ['least', 'median', 'most'] as const) expect(b[key] / a[key], key).toBeCloseTo(1, 9);
  });

  it('is refused where flows are not alike', () => {
    const refused =
      (more: Partial<ScenarioInput>, endpoints = 32) =>
      () =>
        simulate(scenario(endpoints, more), { fold: true });
    expect(refused({ routing: { mode: 'ecmp' } })).toThrow(/static routing/);
    expect(refused({ workload: [{ kind: 'all-to-all', bytes: 1, spread: 0.5 }] })).toThrow(/equal sizes/);
    expect(refused({}, 20)).toThrow(/cannot be folded/);
    expect(refused({ faults: [{ kind: 'nic', index: 0 }] })).toThrow(/no faults/);
  });
});
