import { describe, expect, it } from 'vitest';
import { figure5, figure6, figure7, figure8, table5 } from '../../src/paper/network-figures.js';

describe('ISCA table 5', () => {
  it('has its latencies within 0.1 µs', () => {
    const { figures } = table5();
    expect(figures).toHaveLength(5);
    for (const { name, ours, theirs } of figures) expect(Math.abs(ours - theirs!), name).toBeLessThan(0.1);
  });
});

describe('ISCA figures 5 and 6', () => {
  it('MPFT and MRFT are equal, in bandwidth and in latency', () => {
    // The paper states ±1.5 % for figure 6 and plots equal curves in figure 5.
    for (const { figures } of [figure5(), figure6()]) {
      for (const { name, deviation } of figures) expect(Math.abs(deviation!), name).toBeLessThan(0.015);
    }
  });

  it('the smallest message takes NVLink to the right plane, then the network: rows of table 5', () => {
    const [mpft] = figure6().series;
    // 4 bytes of it to each, and the rounding of the table's figures.
    expect(10 ** mpft!.points[0]!.y / (3.33 + 2.8)).toBeCloseTo(1, 2);
  });

  it('bandwidth falls towards that of the NIC, as fewer bytes stay in the node', () => {
    const last = figure5().series.map(({ points }) => points.at(-1)!.y);
    expect(last[0]).toBeGreaterThan(last[2]!);
    expect(last[2]).toBeGreaterThan(last[4]!);
    expect(last[4]).toBeGreaterThan(50);
  });
});

describe('ISCA figure 7', () => {
  it('dispatch and combine are above 40 GB/s, and within 15 % of the bars', () => {
    const { figures } = figure7(256);
    expect(figures).toHaveLength(8);
    for (const { name, ours, deviation } of figures) {
      expect(ours, name).toBeGreaterThan(40);
      if (deviation !== null) expect(Math.abs(deviation), name).toBeLessThan(0.15);
    }
  });
});

describe('ISCA figure 8', () => {
  it('ECMP is far below adaptive routing, static between or equal', () => {
    const { figures } = figure8(4);
    for (let i = 0; i < figures.length; i += 3) {
      const [ecmp, fixed, adaptive] = figures.slice(i, i + 3).map(({ ours }) => ours);
      expect(ecmp).toBeLessThan(0.5 * adaptive!);
      expect(fixed).toBeGreaterThan(ecmp!);
      expect(fixed).toBeLessThanOrEqual(adaptive! * (1 + 1e-9));
    }
  });
});
