import { describe, expect, it } from 'vitest';
import { bytes, count, duration, percent, rate, si } from '../../src/report/units.js';

describe('si', () => {
  it('takes the prefix that leaves one to three digits before the point', () => {
    const spelled = [0, 7, 999, 1000, 20_131_840, 671e9, 1.5e12].map(count);
    expect(spelled).toEqual(['0', '7', '999', '1 k', '20.1 M', '671 G', '1.5 T']);
  });

  it('moves to the next prefix when rounding reaches a thousand', () => {
    expect(si(999_600)).toBe('1 M');
    expect(si(999_499)).toBe('999 k');
  });

  it('spells small, negative and non-finite values', () => {
    expect([0.00085, 1.2e-6, 3e-12].map((value) => si(value, 's'))).toEqual(['850 µs', '1.2 µs', '0.003 ns']);
    expect(si(-1234, 'B')).toBe('-1.23 kB');
    expect(si(Number.NaN, 'B')).toBe('NaN B');
  });
});

describe('units', () => {
  it('names bytes, rates and shares', () => {
    expect(bytes(3.2e9)).toBe('3.2 GB');
    expect(rate(5123, 'tokens')).toBe('5.12 k tokens/s');
    expect(percent(0.3751)).toBe('37.5 %');
  });

  it('shows a duration in its two largest units', () => {
    const spans = [0.85, 42.12, 59.96, 252, 3600, 3780, 190_800];
    expect(spans.map(duration)).toEqual([
      '850 ms',
      '42.1 s',
      '1 min',
      '4 min 12 s',
      '1 h',
      '1 h 3 min',
      '2 d 5 h',
    ]);
    expect(duration(Number.POSITIVE_INFINITY)).toBe('unknown');
  });
});
