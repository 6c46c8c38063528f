import { describe, expect, it } from 'vitest';
import { decodeLimit, ISCA_DECODE, NVL72_BYTES_PER_SECOND } from '../../src/plan/decode-limit.js';
import { meanNodes, nodeTraffic } from '../../src/plan/node-limited.js';
import { makeSchedule } from '../../src/plan/pipeline/formulas.js';
import { simulate } from '../../src/plan/pipeline/simulate.js';
import { speculativeSpeedup, tokensPerStep } from '../../src/plan/speculation.js';

describe('decode limit [ISCA §2.3.2]', () => {
  it('gives the printed digits at 50 GB/s', () => {
    const limit = decodeLimit(ISCA_DECODE);
    expect((limit.exchangeSeconds * 1e6).toFixed(2)).toBe('120.96');
    expect((limit.layerSeconds * 1e6).toFixed(2)).toBe('241.92');
    expect((limit.tokenSeconds * 1e3).toFixed(2)).toBe('14.76');
    // The paper cuts 67.76 down to 67.
    expect(Math.floor(limit.tokensPerSecond)).toBe(67);
  });

  it('gives the printed digits at 900 GB/s', () => {
    const limit = decodeLimit({ ...ISCA_DECODE, bytesPerSecond: NVL72_BYTES_PER_SECOND });
    expect((limit.exchangeSeconds * 1e6).toFixed(2)).toBe('6.72');
    expect((limit.tokenSeconds * 1e3).toFixed(2)).toBe('0.82');
    // "About 1200".
    expect(Math.round(limit.tokensPerSecond / 100) * 100).toBe(1200);
  });
});

describe('node-limited routing [ISCA §4.3]', () => {
  const v3 = { routed: 256, perToken: 8, groups: 8, groupsPerToken: 4 };

  it('bounds a token by four nodes in place of eight experts', () => {
    const { perExpert, mostPerNode, meanPerNode } = nodeTraffic(v3);
    expect([perExpert, mostPerNode]).toEqual([8, 4]);
    expect(meanPerNode).toBeGreaterThan(3);
    expect(meanPerNode).toBeLessThan(4);
  });

  it('agrees with a count over all choices of a small router', () => {
    // 2 of 6 experts in 3 groups of 2: of 15 pairs, 3 lie in one group.
    expect(meanNodes({ routed: 6, perToken: 2, groups: 3, groupsPerToken: 3 })).toBeCloseTo(
      (3 + 12 * 2) / 15,
      12,
    );
  });

  it('visits every group where there are no more experts than are chosen', () => {
    expect(meanNodes({ routed: 8, perToken: 8, groups: 4, groupsPerToken: 4 })).toBe(4);
  });
});

describe('speculation [ISCA §2.3.3]', () => {
  it('is 1.8 to 1.9 times as fast at the acceptance that is printed', () => {
    expect(speculativeSpeedup(0.8)).toBe(1.8);
    expect(speculativeSpeedup(0.9)).toBe(1.9);
  });

  it('counts drafts up to the first refusal', () => {
    expect(tokensPerStep(0.5, 3)).toBe(1 + 0.5 + 0.25 + 0.125);
    expect(tokensPerStep(0, 3)).toBe(1);
  });
});

describe('ZB-V', () => {
  it.each([
    [2, 4],
    [4, 20],
    [8, 16],
    [16, 48],
  ])('on %i devices with %i micro-batches ends with the last of the work', (devices, count) => {
    const { seconds } = simulate(makeSchedule('zb-v', devices, count), {
      forward: 1,
      backward: 2,
      backwardWeights: 1,
    });
    // Two chunks of three passes each, and the way to the last device.
    expect(seconds).toBe(6 * count + devices - 1);
  });

  it('needs twice as many micro-batches as devices', () => {
    expect(() => makeSchedule('zb-v', 4, 6)).toThrow(/at least 8 micro-batches, not 6/);
  });
});
