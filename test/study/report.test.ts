import { describe, expect, it } from 'vitest';
import { intervalSvg } from '../../src/report/intervals.js';
import { lineSvg } from '../../src/report/lines.js';
import { analyse } from '../../src/study/analysis.js';
import type { Json } from '../../src/study/merge.js';
import { reportPage } from '../../src/study/page.js';
import type { RunRecord } from '../../src/study/results.js';
import { parseStudy } from '../../src/study/schema.js';
import { reportText } from '../../src/study/text.js';
import { quickStudy } from './study.js';

const MACHINE = {
  cpu: 'A CPU',
  cores: 2,
  memoryBytes: 8e9,
  system: 'linux x64',
  node: 'v20.19.0',
  backend: 'avx2',
};

function record(variant: string, seed: number, loss: number, change: Partial<RunRecord> = {}): RunRecord {
  return {
    version: 1,
    digest: 'd',
    variant,
    seed,
    metrics: { validationLoss: loss, cacheBytesPerToken: 480 },
    curves: {
      loss: [],
      validationLoss: [
        [2, loss + 1],
        [4, loss],
      ],
    },
    machine: MACHINE,
    threads: 2,
    finished: `2025-01-0${seed + 1}T00:00:00.000Z`,
    ...change,
  };
}

/** Differences of −1, −2 and −3 %. */
const RECORDS = [
  record('slow', 0, 4),
  record('slow', 1, 5),
  record('slow', 2, 2),
  record('fast', 0, 3.96),
  record('fast', 1, 4.9),
  record('fast', 2, 1.94),
];

const CLAIM = (quickStudy().claims as Json[])[0]!;
const analysed = (change: Json = {}, records: readonly RunRecord[] = RECORDS) =>
  analyse({
    study: parseStudy(quickStudy({ seeds: [0, 1, 2], ...change }), 'study.json'),
    digest: 'd',
    records,
  });

describe('the analysis', () => {
  it('compares runs of the same seed', () => {
    const [slow, fast] = analysed().variants;
    expect(slow!.metrics.validationLoss!.difference).toBeNull();
    expect(slow!.metrics.validationLoss!.mean.mean).toBeCloseTo(11 / 3, 12);
    const { n, mean, low, high } = fast!.metrics.validationLoss!.difference!;
    expect([n, mean]).toEqual([3, expect.closeTo(-0.02, 12)]);
    // Deviation 0.01, so the half-width is 4.3027·0.01/√3 = 0.024841.
    expect([low, high]).toEqual([expect.closeTo(-0.044841, 5), expect.closeTo(0.004841, 5)]);
  });

  it('draws curves over the seeds, of the loss and of the paired difference', () => {
    const [slow, fast] = analysed().variants;
    expect(slow!.curve).toEqual([
      { x: 2, y: expect.closeTo(14 / 3, 12), low: 3, high: 6 },
      { x: 4, y: expect.closeTo(11 / 3, 12), low: 2, high: 5 },
    ]);
    expect(fast!.difference.at(-1)).toEqual({
      x: 4,
      y: expect.closeTo(-0.02, 12),
      low: expect.closeTo(-0.03, 12),
      high: expect.closeTo(-0.01, 12),
    });
  });

  it('judges claims by their intervals', () => {
    const verdicts = (rule: Json, more: Json = {}) =>
      analysed({ claims: [{ ...CLAIM, rule, ...more }] }).claims[0]!.verdict;
    expect(verdicts({ kind: 'lower' })).toBe('undecided');
    expect(verdicts({ kind: 'within', bound: 0.05 })).toBe('confirmed');
    expect(verdicts({ kind: 'higher', by: 0.01 })).toBe('refuted');
    const cache = { metric: 'cacheBytesPerToken', variant: 'fast', against: undefined };
    expect(verdicts({ kind: 'range', low: 480, high: 480 }, cache)).toBe('confirmed');
  });

  it('uses narrower intervals at lower confidence', () => {
    // t for 80 % and two degrees of freedom is 1.886: −2 % ± 1.09 %.
    expect(analysed({ confidence: 0.8 }).claims[0]!.verdict).toBe('confirmed');
  });

  it('says what keeps it from judging', () => {
    const obstacle = (records: RunRecord[], more: Json = {}) =>
      analysed({ claims: [{ ...CLAIM, ...more }] }, records).claims[0]!.obstacle;
    expect(obstacle([])).toBe('there are no runs of fast yet');
    expect(obstacle([RECORDS[0]!, RECORDS[3]!])).toBe('an interval takes at least two seeds');
    expect(obstacle(RECORDS, { metric: 'mtpAcceptance' })).toBe('the runs do not tell second token accepted');
    expect(obstacle([...RECORDS, record('slow', 3, 0, { error: 'lost' })])).toBe('run slow, seed 3 failed');
  });
});

describe('the report', () => {
  it('puts the claim beside the verdict and the interval, for a terminal', () => {
    const text = reportText(analysed());
    expect(text).toContain('UNDECIDED at this scale: Faster is better. [nowhere]\n');
    expect(text).toContain(
      'validation loss of fast lower than of slow: −2 %, 95 % interval −4.48 % to +0.484 %, 3 seeds',
    );
    expect(text).toMatch(/^fast +3\.6000 ± \d\.\d+ +480 B$/m);
    expect(text).toMatch(/^fast +−2 % ± 2\.48 % +0 %$/m);
    expect(text).toContain('6 of 6 runs; seeds 0, 1, 2; A CPU, 2 of 2 cores a run');
  });

  it('is a page that needs nothing else, the same for the same data', () => {
    const report = analysed({
      title: 'a < b & "c"',
      tradeoff: { x: 'cacheBytesPerToken', y: 'validationLoss' },
    });
    const page = reportPage(report);
    expect(reportPage(JSON.parse(JSON.stringify(report)))).toBe(page);
    expect(page).toContain('<h1>a &lt; b &amp; &quot;c&quot;</h1>');
    // The only address is the name of SVG's vocabulary.
    expect([...new Set(page.match(/https?:[^"]*/g))]).toEqual(['http://www.w3.org/2000/svg']);
    expect(page).not.toMatch(/<script|<link|<img|src=|@import/);
    expect(page.match(/<svg /g)).toHaveLength(4);
    expect(page).toContain('<td class="verdict undecided">undecided</td>');
    expect(page).toContain('2025-01-03');
  });

  it('is there before the first run is', () => {
    const page = reportPage(analysed({}, []));
    expect(page).toContain('there are no runs of fast yet');
    expect(page).not.toContain('NaN');
    expect(page).toContain('0 of 6 runs');
  });
});

describe('charts', () => {
  it('draw a curve inside its band', () => {
    const points = [
      { x: 0, y: 2, low: 1, high: 3 },
      { x: 10, y: 4, low: 4, high: 4 },
    ];
    const drawn = lineSvg({ title: 't', xLabel: 'x', yLabel: 'y', curves: [{ name: 'c', points }] });
    // x from 70 to 690 for 0…10; y from 460 up to 50 for 1…4.
    const up = (value: number) => Math.round((460 - ((value - 1) / 3) * 410) * 10) / 10;
    expect(drawn).toContain(`<polyline points="70,${up(2)} 690,${up(4)}"`);
    expect(drawn).toContain(`<polygon points="70,${up(3)} 690,${up(4)} 690,${up(4)} 70,${up(1)}"`);
  });

  it('leave out what is not finite', () => {
    const rows = [
      { label: 'a', mean: 1, low: 0, high: 2 },
      { label: 'b', mean: Number.NaN, low: 0, high: 1 },
    ];
    const drawn = intervalSvg({ title: 't', xLabel: 'x', rows });
    expect(drawn.match(/<circle/g)).toHaveLength(1);
    expect(drawn).not.toContain('NaN');
  });
});
