import { describe, expect, it } from 'vitest';
import { bestInterval, goodput } from '../../src/cluster/goodput.js';
import { failuresOf } from '../../src/cluster/reliability.js';
import { Random } from '../../src/numerics/random.js';
import { parseScenario, type ScenarioInput } from '../../src/spec/scenario.js';

describe('goodput', () => {
  const model = { mtbfSeconds: 1e5, checkpointSeconds: 60, restartSeconds: 600 };

  it('is greatest at the best interval, and first-order losses are right', () => {
    const interval = bestInterval(model);
    const best = goodput({ ...model, intervalSeconds: interval });
    // First order: C/T + T/2M + R/M are lost.
    expect(1 - best).toBeCloseTo(60 / interval + interval / 2e5 + 600 / 1e5, 2);
    for (const factor of [0.5, 2]) {
      expect(goodput({ ...model, intervalSeconds: factor * interval })).toBeLessThan(best);
    }
    expect(goodput({ ...model, mtbfSeconds: Infinity, intervalSeconds: 540 })).toBe(0.9);
  });

  it('is what a job gets that fails at random and goes back to its last checkpoint', () => {
    const hard = { mtbfSeconds: 3000, checkpointSeconds: 60, restartSeconds: 300, intervalSeconds: 900 };
    const random = new Random(3);
    const untilFailure = () => -hard.mtbfSeconds * Math.log(1 - random.uniform());
    const segment = hard.intervalSeconds + hard.checkpointSeconds;
    const [segments, restart] = [40_000, hard.restartSeconds];
    let time = 0;
    for (let done = 0; done < segments; ) {
      const life = untilFailure();
      if (life >= segment) {
        time += segment;
        done++;
        continue;
      }
      time += life;
      // A restart that fails is begun again.
      for (let again = untilFailure(); ; again = untilFailure()) {
        time += Math.min(again, restart);
        if (again >= restart) break;
      }
    }
    // Mean of 40,000 segments, each with a standard deviation of about its own mean: 0.5 %; three of them. Daly's formula takes
    // failures during a restart in: R grows by M(e^(R/M) - 1)/R, 5 % of a tenth here.
    expect((segments * hard.intervalSeconds) / time / goodput(hard)).toBeCloseTo(1, 1.5);
  });
});

describe('failures of a cluster', () => {
  const scenario = (more: Partial<ScenarioInput>) =>
    parseScenario(
      {
        name: 't',
        network: { topology: { kind: 'multi-plane-fat-tree', endpoints: 64, planes: 8 }, node: {} },
        workload: [{ kind: 'all-to-all', bytes: 2 ** 26 }],
        ...more,
      },
      't',
    );

  it('of planes are gone around, of nodes end the job', () => {
    const { parts, jobMtbfSeconds, meanSlowdown, goodput: share } = failuresOf(scenario({}));
    const of = (part: string) => parts.find((one) => one.part === part)!;
    expect(of('nodes')).toMatchObject({ count: 8, slowdown: null });
    expect(of('cables to NICs').count).toBe(64);
    // The traffic of a NIC goes over another one of its node: twice the time, less what stays in the node.
    expect(of('NICs').slowdown).toBeGreaterThan(1.5);
    expect(of('NICs').slowdown).toBeLessThan(2.1);
    expect(of('switches, layer 0')).toMatchObject({ count: 8 });
    expect(jobMtbfSeconds).toBeCloseTo((9400 * 3600) / 8, 0);
    expect(meanSlowdown).toBeGreaterThan(1);
    expect(share).toBeGreaterThan(0.95);
  });

  it('of leaves end a job that has no second plane', () => {
    const tree = scenario({ network: { topology: { kind: 'fat-tree', endpoints: 64, radix: 16 } } });
    const { parts } = failuresOf(tree);
    expect(parts.find(({ part }) => part === 'switches, layer 0')!.slowdown).toBeNull();
    expect(parts.find(({ part }) => part === 'switches, layer 1')!.slowdown).toBeGreaterThan(1);
    expect(() => failuresOf(scenario({ faults: [{ kind: 'nic', index: 0 }] }))).toThrow(/faults of its own/);
  });
});
