import { describe, expect, it } from 'vitest';
import { table3 } from '../../src/paper/table-3.js';
import { PRICE_BOOKS } from '../../src/spec/prices.js';

describe('ISCA table 3', () => {
  const { figures } = table3(PRICE_BOOKS['isca-2025']);
  const part = (pattern: RegExp) => figures.filter(({ name }) => pattern.test(name));

  it('has its endpoints, switches and links exactly', () => {
    const counts = part(/endpoints$|switches$|links$/);
    expect(counts).toHaveLength(15);
    expect(counts.map(({ ours }) => ours)).toEqual(counts.map(({ theirs }) => theirs));
  });

  it('has its costs within 2 %', () => {
    const costs = part(/cost/);
    expect(costs).toHaveLength(10);
    for (const { name, deviation } of costs) expect(Math.abs(deviation!), name).toBeLessThan(0.02);
  });
});
