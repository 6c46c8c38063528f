import { describe, expect, it } from 'vitest';
import { fitOps, type OpSample, predictOps, readRate } from '../../src/plan/ops.js';

/** A cache of 1 MB that gives 100 GB/s, and memory of 10 GB/s. */
const READING = [
  { bytes: 1e6, bytesPerSecond: 100e9 },
  { bytes: 4e6, bytesPerSecond: 10e9 },
  { bytes: 1e9, bytesPerSecond: 10e9 },
];

/** 2 µs a call, 4 GFLOP/s, 40 GB/s from the nearest cache, and one and a half times what the curve has beyond it. */
const seconds = (calls: number, flops: number, bytes: number) =>
  2e-6 * calls + flops / 4e9 + bytes / 40e9 + 1.5 * bytes * (1 / readRate(READING, bytes) - 1 / 100e9);

const sample = (calls: number, flops: number, bytes: number): OpSample => ({
  key: 'gemm',
  calls,
  flops,
  bytes,
  pairs: 0,
  seconds: seconds(calls, flops, bytes),
});

/** Each of a step of its own. */
const SAMPLES = [
  sample(100, 1e6, 1e6),
  sample(10, 4e9, 5e6),
  sample(1000, 1e7, 2e6),
  sample(50, 1e8, 400e6),
  sample(20, 3e9, 90e6),
  sample(70, 2e8, 0.2e6),
];
const costsOf = (samples: readonly OpSample[]) =>
  fitOps(
    samples.map((one) => ({ ops: [one], touchedBytes: one.bytes })),
    READING,
  );

describe('the rate of reading', () => {
  it('lies between measured sizes, and ends with the curve', () => {
    expect(readRate(READING, 1e3)).toBe(100e9);
    expect(readRate(READING, 2e6) / Math.sqrt(100e9 * 10e9)).toBeCloseTo(1, 9);
    expect(readRate(READING, 1e12)).toBe(10e9);
  });
});

describe('costs of operations', () => {
  it('are found from samples that have them, caches included', () => {
    const { gemm } = costsOf(SAMPLES);
    // The system is exact; what is left is FP64 rounding of a 4×4 solve.
    expect(gemm!.secondsPerCall).toBeCloseTo(2e-6, 12);
    expect(gemm!.secondsPerFlop * 4e9).toBeCloseTo(1, 6);
    expect(gemm!.secondsPerByte * 40e9).toBeCloseTo(1, 6);
    expect(gemm!.readings).toBeCloseTo(1.5, 6);
  });

  it('predict work that was not sampled, and name what has no costs', () => {
    const work = [
      { key: 'gemm', calls: 30, flops: 5e8, bytes: 60e6, pairs: 0 },
      { key: 'rope', calls: 3, flops: 0, bytes: 10, pairs: 0 },
    ];
    const prediction = predictOps(
      { ops: work, touchedBytes: 60e6 },
      { ops: costsOf(SAMPLES), reading: READING },
    );
    expect(prediction.seconds / seconds(30, 5e8, 60e6)).toBeCloseTo(1, 6);
    expect(prediction.unknown).toEqual(['rope']);
  });

  it('tell scores of attention from products', () => {
    const block = (flops: number, pairs: number): OpSample => {
      const own = { key: 'attentionBlock', calls: 1, flops, bytes: 0, pairs };
      return { ...own, seconds: flops / 100e9 + pairs / 10e9 };
    };
    const { attentionBlock: cost } = costsOf([
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
    for (const cost of Object.values(costsOf(noisy).gemm!)) expect(cost).toBeGreaterThanOrEqual(0);
  });

  it('need one sample at least, of one cost then', () => {
    const { gemm } = costsOf(SAMPLES.slice(0, 1));
    const work = { ...SAMPLES[0]! };
    expect(
      predictOps({ ops: [work], touchedBytes: work.bytes }, { ops: { gemm: gemm! }, reading: READING })
        .seconds,
    ).toBeCloseTo(SAMPLES[0]!.seconds, 9);
  });
});
