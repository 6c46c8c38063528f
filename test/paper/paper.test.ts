import { describe, expect, it } from 'vitest';
import { makePart, PAPER, paperParts } from '../../src/paper/catalogue.js';
import { paperPage } from '../../src/paper/page.js';
import { banded, figure, verdictOf } from '../../src/paper/row.js';
import { parseStudy } from '../../src/paper/studies.js';
import { outside, paperText } from '../../src/paper/text.js';

const QUICK = [
  ...['table1', 'table2', 'decode-limit', 'mtp', 'studies', 'node-limited'],
  ...['table4', 'bubbles', 'gpu-hours'],
];
const quick = paperParts(QUICK).map((part) => makePart(part, { studies: [] }));

describe('rows', () => {
  it('stay inside their bands', () => {
    expect(outside(quick)).toEqual([]);
  });

  it('say why where they deviate by more than 5 %', () => {
    const silent = quick.flatMap(({ figures }) =>
      figures.filter((row) => row.deviation !== null && Math.abs(row.deviation) > 0.05 && !row.cause),
    );
    expect(silent).toEqual([]);
  });

  it('count as outside beyond the band, and as shown without one', () => {
    expect(verdictOf(banded('a', '', 100, 102, 0.01))).toBe('outside');
    expect(verdictOf(banded('a', '', 100, 101, 0.01))).toBe('inside');
    expect(verdictOf(figure('a', '', 100, 102))).toBe('shown');
    const part = { ...quick[0]!, id: 'x', figures: [banded('a', '', 100, 102, 0.01)] };
    expect(outside([part])).toEqual(['x: a']);
    expect(paperText([part])).toContain('+2.00 % OUTSIDE');
    expect(paperPage([part])).toContain('1 are outside their bands');
  });
});

describe('the page', () => {
  const page = paperPage(quick, ['a <line>']);

  it('has every part and needs nothing from elsewhere', () => {
    for (const id of QUICK) expect(page).toContain(`<h2 id="${id}">`);
    expect(page).toContain('a &lt;line&gt;');
    expect(page).not.toMatch(/<(script|link|img)|url\(|@import/);
    expect(page.match(/<svg /g)!.length).toBe(6);
  });
});

describe('parts', () => {
  it('are listed where a name is none', () => {
    expect(() => paperParts(['table9'])).toThrow(/no part "table9"; take some of table1, .*what-if/);
    expect(paperParts(undefined)).toHaveLength(PAPER.length);
  });
});

describe('studies', () => {
  const interval = { mean: 0.001, low: -0.001, high: 0.003 };
  const study = parseStudy(
    {
      study: { name: 'fp8', title: 'FP8' },
      claims: [
        {
          text: 'within a quarter of a percent',
          source: 'TR §3.3',
          verdict: 'undecided',
          interval,
          rule: { kind: 'within', bound: 0.0025 },
          metric: 'validationLoss',
          against: 'bf16',
        },
      ],
      variants: [{ name: 'mtp', metrics: { mtpAcceptance: { mean: { ...interval, mean: 0.5 } } } }],
      digest: 'let through',
    },
    'fp8.json',
  );

  it('give their claims with verdicts, and the speed-up that follows from an acceptance', () => {
    const [claims, drafts] = paperParts(['studies', 'mtp']).map((part) =>
      makePart(part, { studies: [study] }),
    );
    expect(claims!.figures).toHaveLength(1);
    expect(claims!.figures[0]).toMatchObject({ unit: '%', ours: 0.1, theirs: null });
    expect(claims!.figures[0]!.name).toMatch(/undecided at this scale/);
    expect(drafts!.figures.at(-1)).toMatchObject({ ours: 1.5 });
  });

  it('name a file that is none', () => {
    expect(() => parseStudy({}, 'x.json')).toThrow(/x\.json is no report of a study/);
  });
});
