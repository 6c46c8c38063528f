import { describe, expect, it } from 'vitest';
import { ORDERS_MODEL, ordersDocument } from '../../src/bench/orders-model.js';
import type { SpeculativeReport } from '../../src/bench/speculative.js';
import { speculativeText } from '../../src/bench/speculative-text.js';
import { Random } from '../../src/numerics/random.js';
import { parseModelConfig } from '../../src/spec/model.js';

interface Order {
  order: number;
  customer: string;
  city: string;
  item: string;
  price: string;
  quantity: number;
  total: string;
}

describe('the corpus of orders', () => {
  const records = Array.from({ length: 200 }, (_, seed) => ordersDocument(new Random(seed)))
    .flatMap((text) => text.trimEnd().split('\n'))
    .map((line) => JSON.parse(line) as Order);

  it('counts up within a document, which is the same for the same seed', () => {
    expect(ordersDocument(new Random(3))).toBe(ordersDocument(new Random(3)));
    for (let i = 1; i < 12; i++) expect(records[i]!.order).toBe(records[i - 1]!.order + 1);
  });

  it('draws customer, item and quantity, from which the rest follows', () => {
    const [cities, prices] = [new Map<string, string>(), new Map<string, string>()];
    for (const { customer, city, item, price, quantity, total } of records) {
      expect(cities.get(customer) ?? city).toBe(city);
      expect(prices.get(item) ?? price).toBe(price);
      expect(Number(total)).toBeCloseTo(quantity * Number(price), 10);
      cities.set(customer, city);
      prices.set(item, price);
    }
    expect([cities.size, prices.size]).toEqual([6, 6]);
  });

  it('has a model with a module for its drafts', () => {
    expect(parseModelConfig(ORDERS_MODEL).num_nextn_predict_layers).toBe(1);
  });
});

describe('the report on drafts', () => {
  const timing = (median: number) => ({ median, fastest: median, slowest: median, repeats: 1 });
  const report: SpeculativeReport = {
    machine: { cpu: 'a CPU' } as SpeculativeReport['machine'],
    model: 'orders',
    threads: 2,
    parameters: { total: 2e7, active: 1e7 },
    results: [
      {
        weights: 'q4',
        plain: timing(1e-3),
        drafted: timing(8e-4),
        speedup: 1.25,
        acceptance: 0.9,
        draftedShare: 0.5,
        same: false,
        costs: { step: 1e-3, twoRows: 1.2e-3, module: 1e-4 },
      },
    ],
    checks: [{ name: 'q4: speed-up', value: 1.25, target: 1.5, met: false }],
  };

  it('says what a second row and the module cost, what is missed, and where tokens differ', () => {
    const text = speculativeText(report);
    expect(text).toMatch(/q4 +1000 +1250 +1\.25 +90 % +20 % +10 %/);
    expect(text).toContain('1.25 (target 1.50): NOT MET');
    expect(text).toContain('NOT the same tokens');
  });
});
