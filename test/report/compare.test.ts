import { describe, expect, it } from 'vitest';
import { compareReports } from '../../src/report/compare.js';
import { plainNumber, signedPercent } from '../../src/report/numbers.js';
import { timelineSvg } from '../../src/report/timeline.js';

describe('two reports', () => {
  it('are compared figure by figure, by path', () => {
    const a = { step: 2, memory: { total: 10, fits: true }, notes: ['x'] };
    const b = { step: 3, memory: { total: 10, fits: false }, extra: 1 };
    expect(compareReports(a, b)).toEqual([
      { path: 'step', a: 2, b: 3, change: 0.5 },
      { path: 'memory.total', a: 10, b: 10, change: 0 },
      { path: 'memory.fits', a: true, b: false, change: null },
      { path: 'notes.0', a: 'x', b: undefined, change: null },
      { path: 'extra', a: undefined, b: 1, change: null },
    ]);
  });
});

describe('numbers of tables', () => {
  it.each([
    [0.8198, '0.8198'],
    [516.096, '516.1'],
    [131072, '131072'],
    [7.2e7, '7.200e+7'],
    [0, '0'],
    [Number.NaN, '–'],
  ])('%d is %s', (value, text) => expect(plainNumber(value)).toBe(text));

  it('has signs on deviations', () => {
    expect([0.1234, -0.02, 1e-7].map(signedPercent)).toEqual(['+12.3 %', '−2.00 %', '0 %']);
  });
});

describe('a timeline', () => {
  it('has a bar for every piece of work, and its label where it fits', () => {
    const svg = timelineSvg({
      title: 'a & b',
      xLabel: 's',
      rows: ['0', '1'],
      kinds: ['F', 'B'],
      bars: [
        { row: 0, start: 0, end: 1, kind: 0, label: '7' },
        { row: 1, start: 1, end: 1.001, kind: 1, label: '123456' },
      ],
    });
    expect(svg.match(/stroke="#ffffff"/g)).toHaveLength(2);
    expect(svg).toContain('>7</text>');
    expect(svg).not.toContain('123456');
    expect(svg).toContain('a &amp; b');
  });
});
