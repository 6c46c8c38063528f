import { describe, expect, it } from 'vitest';
import { noMpi, onMpi, onThreads } from './ranks.js';

interface TripResult {
  errors: { y: number; dx: number; dweights: number }[];
  traffic: { copiesAcross: number; acrossPayloadBytes: number; withinPayloadBytes: number };
  expected: { copiesAcross: number; dispatchBytes: number };
}

const SHAPE = {
  tokens: 37,
  topK: 4,
  hidden: 256,
  experts: 16,
  groups: 4,
  groupsPerToken: 3,
  dtype: 'f32',
  wire: 'fp32',
};

/** Sums of a few FP32 products: 2^-24 a step. */
const FP32 = 1e-5;
/** Cutting off to BF16 in the case, twice 2^-8, and rounding of partial sums, of what returns and of the result, 2^-9 each. */
const BF16 = 7 * 2 ** -9;

const CASES = [
  { name: 'one node', options: { perNode: 4 }, tolerance: FP32 },
  { name: 'two nodes of two ranks', options: { perNode: 2 }, tolerance: FP32 },
  { name: 'four nodes', options: { perNode: 1 }, tolerance: FP32 },
  { name: 'two groups of two ranks on one node', options: { perNode: 4, group: 2 }, tolerance: FP32 },
  { name: 'two groups of two nodes', options: { perNode: 1, group: 2 }, tolerance: FP32 },
  { name: 'FP8 there, BF16 back', options: { perNode: 2, dtype: 'bf16', wire: 'fp8:bf16' }, tolerance: BF16 },
  // Step of LogFMT-10 over at most 2^32: e^(22.2/510) − 1 = 4.4 %, half of it.
  { name: 'FP8 there, LogFMT-10 back', options: { perNode: 2, wire: 'fp8:logfmt10' }, tolerance: 0.023 },
];

const transports = [
  { name: 'threads', run: onThreads, missing: undefined },
  { name: 'MPI', run: onMpi, missing: noMpi },
];

describe('messages between nodes', () => {
  it('that arrive damaged are told by their checksums', async () => {
    const results = await onThreads(2, 'corrupted', { ...SHAPE, perNode: 1 });
    expect(results[0]).toMatch(
      /a message from rank 1 on .* to rank 0 on .* arrived damaged \(its checksum is wrong\)/,
    );
    expect(results[1]).toBe('sound');
  });
});

describe.each(transports)('tokens to experts and back: $name', ({ run, missing }) => {
  it.skipIf(missing).each(CASES)(`$name ${missing ?? ''}`, async ({ options, tolerance }) => {
    const results = (await run(4, 'trip', { ...SHAPE, ...options })) as TripResult[];
    expect(results).toHaveLength(4);
    for (const { errors, traffic, expected } of results) {
      for (const { y, dx, dweights } of errors) {
        expect(Math.max(y, dx)).toBeLessThan(tolerance);
        expect(dweights).toBeLessThan(tolerance);
        expect(Math.max(y, dx, dweights)).toBeGreaterThan(0);
      }
      expect(traffic.copiesAcross).toBe(expected.copiesAcross);
      if (expected.copiesAcross === 0) expect(traffic.acrossPayloadBytes).toBe(0);
    }
    const sum = (pick: (r: TripResult) => number) => results.reduce((a, r) => a + pick(r), 0);
    if (!('wire' in options)) {
      // What goes comes back, in the same format.
      expect(sum((r) => r.traffic.acrossPayloadBytes)).toBe(2 * sum((r) => r.expected.dispatchBytes));
    }
  });
});
