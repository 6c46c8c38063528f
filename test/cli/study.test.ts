import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { StudyReport } from '../../src/study/analysis.js';
import { quickStudy } from '../study/study.js';
import { goldenPath } from '../text/goldens.js';
import { fathom, fathomJson } from './run.js';

/** The backend that is there without a compiler. */
const ENGINE = ['--backend', 'reference'];

let folder: string;
let file: string;
let out: string;
let report: StudyReport;
beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'fathom-study-'));
  file = path.join(folder, 'rates.json');
  out = path.join(folder, 'out');
  writeFileSync(file, JSON.stringify(quickStudy({ data: [goldenPath('sample.txt')] })));
  const run = ['study', 'run', file, '--out', out, '--steps', '3', '--jobs', '2', ...ENGINE];
  report = (await fathomJson(run)) as unknown as StudyReport;
}, 120_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('fathom study run', () => {
  it('trains every run for real and reports as one JSON object', () => {
    expect(report.runs).toEqual({ expected: 4, complete: 4, failed: [] });
    expect(report.study.base).toMatchObject({ steps: 3 });
    for (const { metrics } of report.variants) {
      // A model that knows nothing is at ln 512 = 6.24.
      expect(metrics.validationLoss!.mean.mean).toBeGreaterThan(5);
      expect(metrics.validationLoss!.mean.mean).toBeLessThan(7);
    }
    const [slow, fast] = report.variants;
    expect(slow!.metrics.validationLoss).not.toEqual(fast!.metrics.validationLoss);
    expect(report.claims[0]!.interval!.n).toBe(2);
  });

  it('leaves results and report, and none of what the runs needed', () => {
    expect(readdirSync(out).sort()).toEqual(['report.html', 'report.json', 'results', 'study.json']);
    expect(JSON.parse(readFileSync(path.join(out, 'report.json'), 'utf8'))).toEqual(report);
  });

  it('refuses a folder that holds another study', async () => {
    const { code, stderr } = await fathom(['study', 'run', file, '--out', out, ...ENGINE]);
    expect([code, stderr]).toEqual([1, expect.stringContaining('holds results of another study ("rates"')]);
  });

  it('names what is wrong with a study and starts nothing', async () => {
    const wrong = path.join(folder, 'wrong.json');
    const never = path.join(folder, 'never');
    writeFileSync(wrong, JSON.stringify(quickStudy({ data: ['missing.txt'] })));
    const missing = await fathom(['study', 'run', wrong, '--out', never, ...ENGINE]);
    expect([missing.code, missing.stderr]).toEqual([1, expect.stringContaining('missing.txt')]);
    expect(existsSync(never)).toBe(false);
    const seeds = await fathom(['study', 'run', file, '--seeds', '1,x']);
    expect([seeds.code, seeds.stderr]).toEqual([2, expect.stringContaining('"x" is no seed')]);
  });
});

describe('fathom study report', () => {
  it('says the same again and writes the page where it is asked for', async () => {
    const html = path.join(folder, 'page.html');
    const { code, stdout } = await fathom(['study', 'report', out, '--html', html]);
    expect([code, stdout]).toEqual([0, expect.stringMatching(/^Two learning rates\n[\s\S]*4 of 4 runs/)]);
    expect(readFileSync(html, 'utf8')).toBe(readFileSync(path.join(out, 'report.html'), 'utf8'));
    expect(await fathomJson(['study', 'report', out])).toEqual(report);
  });
});

describe('fathom study list', () => {
  it('names the studies that come with it', async () => {
    const { studies } = (await fathomJson(['study', 'list'])) as { studies: { name: string }[] };
    expect(studies.map(({ name }) => name)).toEqual(expect.arrayContaining(['balance', 'mtp', 'routing']));
  });
});
