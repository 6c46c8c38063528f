import { describe, expect, it } from 'vitest';
import { alignedSum, studyGemm, truncateFp22 } from '../../src/numerics/accumulate.js';
import { NUMBER_FORMATS } from '../../src/numerics/formats.js';
import { Random } from '../../src/numerics/random.js';
import { BLOCKS, dequantizeMatrix, quantizeMatrix, type ScaledFormat } from '../../src/numerics/scaled.js';

const normal = (count: number, seed: number) => {
  const random = new Random(seed);
  return Float32Array.from({ length: count }, () => random.normal());
};

/** a [M, K] · b [N, K]ᵀ in FP64. */
function exact(a: Float32Array, b: Float32Array, k: number): Float64Array {
  const [m, n] = [a.length / k, b.length / k];
  const out = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) for (let p = 0; p < k; p++) out[i * n + j]! += a[i * k + p]! * b[j * k + p]!;
  }
  return out;
}

const scaled = (block = BLOCKS.tensor()): ScaledFormat => ({
  format: NUMBER_FORMATS.e4m3,
  scaling: { block, rule: 'fp32' },
});

describe('FP22 of Hopper', () => {
  it('keeps 13 fraction bits and cuts the rest off, towards zero', () => {
    expect(truncateFp22(1 + 2 ** -13)).toBe(1 + 2 ** -13);
    expect(truncateFp22(1 + 2 ** -13 - 2 ** -20)).toBe(1);
    expect(truncateFp22(-(1 + 2 ** -13 + 2 ** -14))).toBe(-(1 + 2 ** -13));
    expect(truncateFp22(0)).toBe(0);
    expect(truncateFp22(2 ** -126 + 2 ** -140)).toBe(2 ** -126);
  });

  it('shifts products to the largest exponent among them before it adds', () => {
    expect(alignedSum([1, 2 ** -13])).toBe(1 + 2 ** -13);
    expect(alignedSum([1, 2 ** -14, 2 ** -14])).toBe(1); // each is cut off, though their sum would count
    expect(alignedSum([1.75, -1.75 + 2 ** -10])).toBe(2 ** -10);
    expect(alignedSum([4, -3 * 2 ** -12])).toBe(4 - 2 ** -11); // -1.5 units of 2^-11 become -1
    expect(alignedSum([0, 0])).toBe(0);
  });

  it('is exact where 13 bits suffice, and loses what it must elsewhere', () => {
    const ones = quantizeMatrix(new Float32Array(4096).fill(1), 4096, scaled());
    const sum = (promotion?: number) =>
      studyGemm(ones, ones, promotion ? { kind: 'fp22', promotion } : { kind: 'fp22' })[0];
    expect(sum()).toBe(4096);
    // 2^14 + 1 needs 14 fraction bits: a register without promotion stands still at 2^14 when ones come one by one.
    const spread = (i: number) => (i % 32 === 0 ? 1 : 0);
    const many = quantizeMatrix(
      Float32Array.from({ length: 32 * 20000 }, (_, i) => spread(i)),
      32 * 20000,
      {
        format: NUMBER_FORMATS.e4m3,
        scaling: { block: BLOCKS.tensor(), rule: 'none' },
      },
    );
    expect(studyGemm(many, many, { kind: 'fp22' })[0]).toBe(2 ** 14);
    expect(studyGemm(many, many, { kind: 'fp22', promotion: 128 })[0]).toBe(20000);
  });
});

describe('a GEMM in any format, scaling and accumulator', () => {
  const K = 4096;
  const [a, b] = [normal(8 * K, 1), normal(8 * K, 2)];

  /** Largest error against the exact product of the same codes, relative to the largest result. */
  function loss(format: ScaledFormat, accumulator: Parameters<typeof studyGemm>[2]): number {
    const [qa, qb] = [quantizeMatrix(a, K, format), quantizeMatrix(b, K, format)];
    const want = exact(dequantizeMatrix(qa), dequantizeMatrix(qb), K);
    const got = studyGemm(qa, qb, accumulator);
    const largest = Math.max(...want.map(Math.abs));
    return Math.max(...got.map((value, i) => Math.abs(value - want[i]!))) / largest;
  }

  it('FP32 accumulation is exact to its rounding, for every block size', () => {
    for (const block of [BLOCKS.tensor(), BLOCKS.row(), BLOCKS.tile(128), BLOCKS.block(128)]) {
      // 4096 sequential sums, each with half an ulp of a partial sum that stays of the order of the result.
      expect(loss(scaled(block), { kind: 'fp32' })).toBeLessThan(K * 2 ** -24);
    }
    const bf16: ScaledFormat = {
      format: NUMBER_FORMATS.bf16,
      scaling: { block: BLOCKS.tensor(), rule: 'none' },
    };
    expect(loss(bf16, { kind: 'fp32' })).toBeLessThan(K * 2 ** -24);
  });

  it('FP22 loses per cent at K = 4096, promotion every 128 wins it back [TR §3.3.2]', () => {
    const without = loss(scaled(), { kind: 'fp22' });
    const promoted = loss(scaled(), { kind: 'fp22', promotion: 128 });
    const coarse = loss(scaled(), { kind: 'fp22', promotion: 1024 });
    // The report finds "nearly 2 %" for two random matrices.
    expect(without).toBeGreaterThan(0.001);
    expect(without).toBeLessThan(0.02);
    expect(promoted).toBeLessThan(without / 2);
    expect(coarse).toBeGreaterThan(promoted);
    // With tiles of 128, scaled partial sums go through FP32 only where they are promoted.
    const tiled = scaled(BLOCKS.tile(128));
    expect(loss(tiled, { kind: 'fp22', promotion: 128 })).toBeLessThan(loss(tiled, { kind: 'fp22' }) / 2);
  });

  it('applies scales along the contraction', () => {
    const x = Float32Array.from({ length: 256 }, (_, i) => (i < 128 ? 1e-6 : 1e6));
    const q = quantizeMatrix(x, 256, scaled(BLOCKS.tile(128)));
    expect(studyGemm(q, q, { kind: 'fp32' })[0]! / 128e12).toBeCloseTo(1, 6);
    const small = quantizeMatrix(x.fill(0, 128), 256, scaled(BLOCKS.tile(128)));
    expect(studyGemm(small, q, { kind: 'fp32' })[0]! / 128e-12).toBeCloseTo(1, 6);
    expect(() => studyGemm(q, quantizeMatrix(x, 128, scaled()), { kind: 'fp32' })).toThrow(/256 and 128/);
  });
});
