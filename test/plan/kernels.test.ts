import { describe, expect, it } from 'vitest';
import { attentionSeconds, gemmSeconds } from '../../src/plan/kernels.js';
import { MACHINES } from '../../src/spec/machines.js';

const h800 = MACHINES.h800!;

/** DeepGEMM README of 2025-02, H800: M, N, K, TFLOPS. */
const DENSE = [
  [64, 2112, 7168, 206],
  [64, 24576, 1536, 289],
  [64, 32768, 512, 219],
  [64, 7168, 16384, 336],
  [64, 4096, 7168, 287],
  [64, 7168, 2048, 295],
  [128, 2112, 7168, 352],
  [128, 24576, 1536, 535],
  [128, 32768, 512, 358],
  [128, 7168, 16384, 645],
  [128, 4096, 7168, 533],
  [128, 7168, 2048, 510],
  [4096, 2112, 7168, 1058],
  [4096, 24576, 1536, 990],
  [4096, 32768, 512, 590],
  [4096, 7168, 16384, 1358],
  [4096, 4096, 7168, 1304],
  [4096, 7168, 2048, 1025],
] as const;

/** Groups, rows of a group, N, K, TFLOPS; contiguous above, masked below. */
const GROUPED = [
  [4, 8192, 4096, 7168, 1297],
  [4, 8192, 7168, 2048, 1099],
  [8, 4096, 4096, 7168, 1288],
  [8, 4096, 7168, 2048, 1093],
  [1, 1024, 4096, 7168, 1233],
  [1, 1024, 7168, 2048, 925],
  [2, 512, 4096, 7168, 1040],
  [2, 512, 7168, 2048, 916],
  [4, 256, 4096, 7168, 932],
  [4, 256, 7168, 2048, 815],
] as const;

/** DeepGEMM pull request 95, H800: M, N, K of dW = dYᵀX, K being the tokens. */
const WEIGHT_GRADIENTS = [
  [7168, 2112, 4096, 920],
  [1536, 24576, 4096, 986],
  [512, 32768, 4096, 878],
  [16384, 7168, 4096, 994],
  [7168, 4096, 4096, 942],
  [2048, 7168, 4096, 920],
  [7168, 2112, 8192, 1052],
  [1536, 24576, 8192, 1092],
  [512, 32768, 8192, 1014],
] as const;

const tflops = (products: number, seconds: number) => (2 * products) / seconds / 1e12;
/** Worst and mean deviation of rates from a table. */
function deviations(pairs: readonly (readonly [own: number, published: number])[]): [number, number] {
  const off = pairs.map(([own, published]) => Math.abs(own / published - 1));
  return [Math.max(...off), off.reduce((a, b) => a + b, 0) / off.length];
}

// Three constants (rate, start-up, launch) for 37 published points; single kernels choose block sizes that these do not know.
describe('rates of the H800 against the tables they come from', () => {
  it('dense FP8', () => {
    const [worst, mean] = deviations(
      DENSE.map(([rows, n, k, published]) => [
        tflops(rows * n * k, gemmSeconds(h800, { rows, n, k }, 'fp8')),
        published,
      ]),
    );
    expect(worst).toBeLessThan(0.3);
    expect(mean).toBeLessThan(0.1);
  });

  it('grouped FP8', () => {
    const [worst, mean] = deviations(
      GROUPED.map(([groups, rows, n, k, published]) => [
        tflops(groups * rows * n * k, gemmSeconds(h800, { groups, rows, n, k }, 'fp8')),
        published,
      ]),
    );
    expect(worst).toBeLessThan(0.3);
    expect(mean).toBeLessThan(0.1);
  });

  it('weight gradients', () => {
    const [worst, mean] = deviations(
      WEIGHT_GRADIENTS.map(([rows, n, k, published]) => [
        tflops(rows * n * k, gemmSeconds(h800, { rows, n, k }, 'fp8', 'weightGradient')),
        published,
      ]),
    );
    expect(worst).toBeLessThan(0.3);
    expect(mean).toBeLessThan(0.1);
  });

  it('attention, at a length of the table and between two', () => {
    const flops = (4 * 4 * 48 * 4096 ** 2 * 128) / 2;
    expect(attentionSeconds(h800, flops, 4096, 'forward')).toBeCloseTo(1236.9e-6, 9);
    expect(attentionSeconds(h800, flops, 4096, 'backward')).toBeCloseTo(4643.46e-6, 9);
    const between = attentionSeconds(h800, flops, 3000, 'forward');
    expect(between).toBeGreaterThan(attentionSeconds(h800, flops, 4096, 'forward'));
    expect(between).toBeLessThan(attentionSeconds(h800, flops, 2048, 'forward'));
  });
});

describe('shape', () => {
  it('costs as much for one row as for half a tile', () => {
    const at = (rows: number) => gemmSeconds(h800, { rows, n: 4096, k: 7168 }, 'fp8');
    expect(at(64) / at(1)).toBeLessThan(1.1);
  });

  it('is slower on fewer units', () => {
    const shape = { rows: 4096, n: 7168, k: 7168 };
    expect(gemmSeconds(h800, shape, 'fp8', 'forward', 112)).toBeGreaterThan(gemmSeconds(h800, shape, 'fp8'));
  });
});
