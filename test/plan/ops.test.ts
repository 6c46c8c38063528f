import { describe, expect, it } from 'vitest';
import { fitOps, type OpSample, predictOps } from '../../src/plan/ops.js';

/** 2 µs a call, 4 GFLOP/s, 10 GB/s, and 5 GB/s for what is beyond 16 MB. */
const seconds = (calls: number, flops: number, bytes: number) =>
  2e-6 * calls + flops / 4e9 + bytes / 10e9 + Math.max(0, bytes - 16e6) / 10e9;

const sample = (calls: number, flops: number, bytes: number): OpSample => ({
  key: 'gemm',
  calls,
  flops,
  bytes,
  pairs: 0,
  seconds: seconds(calls, flops, bytes),
});

const SAMPLES = [
  sample(100, 1e6, 1e6),
  sample(10, 4e9, 5e6),
  sample(1000, 1e7, 40e6),
  sample(50, 1e8, 400e6),
  sample(20, 3e9, 90e6),
  sample(70, 2e8, 12e6),
];

describe('costs of operations', () => {
  it('are found from samples that have them, caches included', () => {
    const { gemm } = fitOps(SAMPLES);
    expect(gemm!.cacheBytes).toBe(16e6);
    // The system is exact; what is left is FP64 rounding of a 4×4 solve.
    expect(gemm!.secondsPerCall).toBeCloseTo(2e-6, 12);
    expect(gemm!.secondsPerFlop * 4e9).toBeCloseTo(1, 6);
    expect(gemm!.secondsPerColdByte * 10e9).toBeCloseTo(1, 6);
  });

  it('predict work that was not sampled, and name what has no costs', () => {
    const work = [
      { key: 'gemm', calls: 30, flops: 5e8, bytes: 60e6, pairs: 0 },
      { key: 'rope', calls: 3, flops: 0, bytes: 10, pairs: 0 },
    ];
    const prediction = predictOps(work, fitOps(SAMPLES));
    expect(prediction.seconds / seconds(30, 5e8, 60e6)).toBeCloseTo(1, 6);
    expect(prediction.unknown).toEqual(['rope']);
  });

  it('tell scores of attention from products', () => {
    const block = (flops: number, pairs: number): OpSample => {
      const own = { key: 'attentionBlock', calls: 1, flops, bytes: 0, pairs };
      return { ...own, seconds: flops / 100e9 + pairs / 10e9 };
    };
    const { attentionBlock: cost } = fitOps([
      block(1e9, 1e8),
      block(1e9, 1e9),
      block(3e9, 2e8),
      block(2e8, 1e9),
    ]);
    expect(cost!.secondsPerFlop * 100e9).toBeCloseTo(1, 6);
    expect(cost!.secondsPerPair * 10e9).toBeCloseTo(1, 6);
  });

  it('are never negative, whatever was measured', () => {
    const noisy = SAMPLES.map((one, i) => ({ ...one, seconds: one.seconds * (i % 2 === 0 ? 3 : 0.3) }));
    const { cacheBytes: _, ...costs } = fitOps(noisy).gemm!;
    for (const cost of Object.values(costs)) expect(cost).toBeGreaterThanOrEqual(0);
  });

  it('need one sample at least, of one cost then', () => {
    const { gemm } = fitOps(SAMPLES.slice(0, 1));
    const work = { ...SAMPLES[0]! };
    expect(predictOps([work], { gemm: gemm! }).seconds).toBeCloseTo(SAMPLES[0]!.seconds, 9);
  });
});
