import { describe, expect, it } from 'vitest';
import { curve } from '../../src/report/spark.js';
import { list, table } from '../../src/report/table.js';

describe('table', () => {
  it('aligns text left and numbers right under underlined titles', () => {
    const columns = [{ title: 'tensor' }, { title: 'bytes', align: 'right' as const }];
    const rows = [
      ['embedding', '1.2 MB'],
      ['c_kv ≤ 4', '16 B'],
    ];
    expect(table(columns, rows).split('\n')).toEqual([
      'tensor      bytes',
      '─────────  ──────',
      'embedding  1.2 MB',
      'c_kv ≤ 4     16 B',
    ]);
  });

  it('lists pairs with aligned values', () => {
    expect(
      list([
        ['a', '1'],
        ['long', '2'],
      ]),
    ).toBe('a     1\nlong  2');
  });
});

describe('curve', () => {
  const falling = Array.from({ length: 40 }, (_, i) => ({ x: i + 1, y: 8 - i * 0.1 }));

  it('fills the area below a falling loss and labels both axes', () => {
    const lines = curve(falling, { width: 10, height: 3, title: 'loss', xLabel: 'steps' }).split('\n');
    expect(lines).toEqual([
      'loss',
      '7.85 ┤█▅▃',
      '     ┤████▆▃▁',
      '4.25 ┤███████▆▄▁',
      '     └──────────',
      '      1       40 steps',
    ]);
  });

  it('bridges empty columns and leaves out values that are not finite', () => {
    const points = [
      { x: 0, y: 0 },
      { x: 5, y: Number.NaN },
      { x: 9, y: 8 },
    ];
    const [line] = curve(points, { width: 10, height: 1 }).split('\n');
    expect(line).toBe('8 ┤▁▂▃▃▄▅▆▆▇█');
  });

  it('says so when there is nothing to draw', () => {
    expect(curve([{ x: 1, y: 1 }])).toBe('(too few points to draw)');
  });
});
