import { describe, expect, it } from 'vitest';
import { scatterSvg } from '../../src/report/scatter.js';

const chart = {
  title: 'A < B & C',
  xLabel: 'bits',
  yLabel: 'dB',
  series: [
    {
      name: 'one',
      points: [
        { x: 8, y: 30, label: 'e4m3' },
        { x: 8, y: 30.1, label: 'e5m2' },
      ],
    },
    {
      name: 'two',
      points: [
        { x: 16, y: Number.POSITIVE_INFINITY, label: 'bf16' },
        { x: 10.5, y: 50, label: 'logfmt10' },
      ],
    },
  ],
};

const numbers = (svg: string, attribute: string) =>
  [...svg.matchAll(new RegExp(`<circle[^>]* ${attribute}="([\\d.]+)" [^>]*r="4"`, 'g'))].map((m) =>
    Number(m[1]),
  );

describe('scatterSvg', () => {
  const svg = scatterSvg(chart);

  it('draws finite points, more bits to the right and more dB further up', () => {
    const x = [...svg.matchAll(/<circle cx="([\d.]+)" cy="[\d.]+" r="4"/g)].map((m) => Number(m[1]));
    const y = numbers(svg, 'cy');
    expect(x.length).toBe(3);
    expect(x[2]).toBeGreaterThan(x[0]!);
    expect(y[2]).toBeLessThan(y[0]!);
    expect(svg).not.toMatch(/NaN|Infinity/);
  });

  it('names series, axes and points, escaped, and keeps labels apart', () => {
    for (const text of ['A &lt; B &amp; C', '>one<', '>two<', '>bits<', '>dB<', '>e4m3<', '>logfmt10<']) {
      expect(svg).toContain(text);
    }
    const label = (name: string) => Number(new RegExp(`y="([\\d.]+)" [^>]*>${name}<`).exec(svg)![1]);
    expect(Math.abs(label('e4m3') - label('e5m2'))).toBeGreaterThanOrEqual(12);
  });

  it('leaves labels where they are beside points that have none', () => {
    const label = (cloud: string) => {
      const points = [{ x: 1, y: 1, label: cloud }];
      const series = [
        { name: 'cloud', points },
        { name: 'named', points: [{ x: 1, y: 0.999, label: 'p' }] },
        { name: 'frame', points: [{ x: 0, y: 0, label: '' }] },
      ];
      return Number(/y="([\d.]+)" [^>]*>p</.exec(scatterSvg({ ...chart, series }))![1]);
    };
    expect(label('q')).toBeGreaterThan(label(''));
  });

  it('takes no points and a single one', () => {
    expect(scatterSvg({ ...chart, series: [] })).toContain('</svg>');
    expect(
      scatterSvg({ ...chart, series: [{ name: 'a', points: [{ x: 0, y: 0, label: 'p' }] }] }),
    ).not.toMatch(/NaN/);
  });
});
