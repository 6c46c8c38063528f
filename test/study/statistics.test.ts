import { describe, expect, it } from 'vitest';
import type { Rule } from '../../src/study/schema.js';
import { centralProbability, meanInterval, twoSidedQuantile } from '../../src/study/student.js';
import { judge, relativeDifferences, type Verdict } from '../../src/study/verdict.js';

describe("Student's t", () => {
  // Table of the NIST/SEMATECH e-Handbook of Statistical Methods, §1.3.6.7.2: three decimals.
  const TABLE: [df: number, t90: number, t95: number, t99: number][] = [
    [1, 6.314, 12.706, 63.657],
    [2, 2.92, 4.303, 9.925],
    [3, 2.353, 3.182, 5.841],
    [4, 2.132, 2.776, 4.604],
    [5, 2.015, 2.571, 4.032],
    [10, 1.812, 2.228, 3.169],
    [29, 1.699, 2.045, 2.756],
    [100, 1.66, 1.984, 2.626],
  ];
  for (const [df, t90, t95, t99] of TABLE) {
    it(`agrees with the table for ${df} degrees of freedom`, () => {
      const quantiles = [0.9, 0.95, 0.99].map((p) => Number(twoSidedQuantile(p, df).toFixed(3)));
      expect(quantiles).toEqual([t90, t95, t99]);
    });
  }

  it('has probabilities that belong to its quantiles', () => {
    for (const df of [1, 2, 3, 8, 31]) {
      // Bisection to 60 bits of t; the sum over df/2 terms keeps some 14 digits.
      expect(centralProbability(twoSidedQuantile(0.975, df), df)).toBeCloseTo(0.975, 13);
    }
    expect(centralProbability(0, 4)).toBe(0);
  });

  it('gives the interval of a mean', () => {
    // Mean 2, deviation 1, so the half-width is 4.3027·1/√3 = 2.4841.
    const { n, mean, low, high } = meanInterval([1, 2, 3], 0.95);
    expect([n, mean]).toEqual([3, 2]);
    expect(low).toBeCloseTo(2 - 2.4841, 4);
    expect(high).toBeCloseTo(2 + 2.4841, 4);
  });

  it('has no interval for one value, and none of width for equal values', () => {
    expect(meanInterval([5], 0.95)).toEqual({ n: 1, mean: 5, low: null, high: null });
    expect(meanInterval([5, 5, 5], 0.95)).toEqual({ n: 3, mean: 5, low: 5, high: 5 });
  });
});

describe('verdicts', () => {
  const cases: [rule: Rule, low: number, high: number, verdict: Verdict][] = [
    [{ kind: 'within', bound: 0.0025 }, -0.001, 0.002, 'confirmed'],
    [{ kind: 'within', bound: 0.0025 }, -0.001, 0.003, 'undecided'],
    [{ kind: 'within', bound: 0.0025 }, -0.01, 0.01, 'undecided'],
    [{ kind: 'within', bound: 0.0025 }, 0.003, 0.004, 'refuted'],
    [{ kind: 'within', bound: 0.0025 }, -0.004, -0.003, 'refuted'],
    [{ kind: 'lower', by: 0 }, -0.02, -0.01, 'confirmed'],
    [{ kind: 'lower', by: 0 }, -0.02, 0.01, 'undecided'],
    [{ kind: 'lower', by: 0 }, 0.01, 0.02, 'refuted'],
    // No difference at all is not lower.
    [{ kind: 'lower', by: 0 }, 0, 0, 'refuted'],
    [{ kind: 'lower', by: 0.015 }, -0.02, -0.01, 'undecided'],
    [{ kind: 'higher', by: 0 }, 0.01, 0.02, 'confirmed'],
    [{ kind: 'higher', by: 0.05 }, 0.01, 0.02, 'refuted'],
    [{ kind: 'range', low: 0.8, high: 0.9 }, 0.8, 0.9, 'confirmed'],
    [{ kind: 'range', low: 0.8, high: 0.9 }, 0.7, 0.85, 'undecided'],
    [{ kind: 'range', low: 0.8, high: 0.9 }, 0.1, 0.2, 'refuted'],
    [{ kind: 'range', high: 4 }, 4, 4, 'confirmed'],
    [{ kind: 'range', low: 4 }, 4.1, 4.2, 'confirmed'],
  ];
  for (const [rule, low, high, verdict] of cases) {
    it(`${JSON.stringify(rule)} is ${verdict} by ${low} … ${high}`, () => {
      expect(judge(rule, { n: 3, mean: (low + high) / 2, low, high })).toBe(verdict);
    });
  }

  it('is undecided without an interval', () => {
    expect(judge({ kind: 'lower', by: 0 }, { n: 1, mean: -1, low: null, high: null })).toBe('undecided');
  });

  it('pairs relative to the magnitude of the other, which must not be zero', () => {
    const pairs = [
      { value: 3, against: 4 },
      { value: -3, against: -4 },
      { value: 1, against: 0 },
    ];
    expect(relativeDifferences(pairs)).toEqual([-0.25, 0.25]);
  });
});
