import { describe, expect, it } from 'vitest';
import { StepCosts } from '../../src/infer/step-costs.js';
import { Random } from '../../src/numerics/random.js';

/** Notes steps of random sizes that take 50 ms and 0.4 ms a row, times a factor each. */
function measured(factor: (random: Random) => number, steps = 200): StepCosts {
  const [costs, random] = [new StepCosts(), new Random(3)];
  for (let i = 0; i < steps; i++) {
    const rows = 2 + random.below(400);
    costs.note(rows, (0.05 + 0.0004 * rows) * factor(random));
  }
  return costs;
}

describe('the balance of a step', () => {
  it('is the number of rows that cost as much as what does not depend on them', () => {
    expect(measured(() => 1).balance).toBeCloseTo(125, 6);
    // Ten per cent of noise over some fifty steps.
    expect(Math.abs(measured((random) => 1 + 0.1 * random.normal()).balance - 125)).toBeLessThan(40);
  });

  it('hardly changes where some steps are disturbed', () => {
    const { balance } = measured((random) => (random.below(20) === 0 ? 30 : 1));
    expect(balance).toBeGreaterThan(80);
    expect(balance).toBeLessThan(220);
  });

  it('follows costs that change', () => {
    const costs = measured(() => 1);
    const random = new Random(4);
    for (let i = 0; i < 600; i++) {
      const rows = 2 + random.below(400);
      costs.note(rows, 0.02 + 0.0004 * rows);
    }
    expect(costs.balance).toBeCloseTo(50, 1);
  });

  it('stays as it was while all steps are alike, and within bounds whatever they show', () => {
    const costs = measured(() => 1);
    for (let i = 0; i < 1000; i++) costs.note(128, 0.1012);
    expect(costs.balance).toBeGreaterThan(60);
    expect(costs.balance).toBeLessThan(250);
    const odd = new StepCosts();
    for (let i = 0; i < 100; i++) odd.note(1 + (i % 50), 1 / (1 + (i % 50)));
    expect(odd.balance).toBeGreaterThan(0);
    expect(odd.balance).toBeLessThan(5000);
  });
});

it('reads as many prompt tokens as make a step three times as long, and more where more decode', () => {
  const costs = measured(() => 1);
  const seconds = (rows: number) => 0.05 + 0.0004 * rows;
  for (const decoding of [1, 8, 64])
    expect(seconds(decoding + costs.promptTokens(decoding)) / seconds(decoding)).toBeCloseTo(3, 1);
});
