import { describe, expect, it } from 'vitest';
import { checkNetwork } from '../../src/plan/network-check.js';
import { DEEPSEEK_V3_PLAN } from '../../src/plan/train-plan.js';
import { parseCluster } from '../../src/spec/machine.js';
import { machineNamed } from '../../src/spec/machines.js';
import { MODEL_PRESETS } from '../../src/spec/presets.js';
import { parseModelShape } from '../../src/spec/read-shape.js';

const shape = parseModelShape(MODEL_PRESETS['deepseek-v3']);
const cluster = parseCluster({ machine: 'h800', nodes: 256 }, 'test', machineNamed);
const check = (on = cluster) => checkNetwork(shape, on, DEEPSEEK_V3_PLAN, 'multi-plane-fat-tree');

describe('communication of a plan, flow by flow', () => {
  const rows = check();

  it('takes as long as the formula where rings meet no other traffic', () => {
    const [, , dense, experts] = rows;
    for (const row of [dense!, experts!]) {
      // What differs is latency: 127 steps of microseconds within 96 ms.
      expect(Math.abs(row.flowSeconds / row.formulaSeconds - 1)).toBeLessThan(0.01);
    }
    expect(dense!.name).toBe('gradients of dense parts, 128 replicas');
  });

  it('moves dispatch and combine by their bytes, at most as fast as the NICs', () => {
    const [dispatch, combine] = rows;
    // E4M3 with a four-byte scale per 128 values, against BF16; two patterns of the same links, latency aside.
    const byBytes = 2 / (1 + 4 / 128);
    expect(Math.abs(combine!.flowSeconds / dispatch!.flowSeconds / byBytes - 1)).toBeLessThan(0.05);
    // 3.5 to 4 copies of a token, of which one in eight stays; 40 GB/s.
    const copies = (combine!.flowSeconds * 40e9) / combine!.bytes;
    expect(copies).toBeGreaterThan(3);
    expect(copies).toBeLessThan(4);
  });

  it('takes twice as long on NICs of half the rate', () => {
    const slow = parseCluster(
      { machine: 'h800', nodes: 256, scaleOutBytesPerSecond: 25e9 },
      'test',
      machineNamed,
    );
    expect(check(slow)[1]!.flowSeconds / rows[1]!.flowSeconds).toBeCloseTo(2, 1);
  });

  it('refuses devices that are no whole number of nodes', () => {
    const plan = { ...DEEPSEEK_V3_PLAN, expert: 4 };
    expect(() => checkNetwork(shape, cluster, plan, 'fat-tree')).toThrow(
      '4 devices that exchange are no whole number of nodes of 8',
    );
  });
});
