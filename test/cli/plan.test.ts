import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { fathom } from './run.js';

const folder = mkdtempSync(join(tmpdir(), 'fathom-plan-'));
const file = (name: string, json: object): string => {
  writeFileSync(join(folder, name), JSON.stringify(json));
  return join(folder, name);
};

describe('fathom plan', () => {
  it('estimates training as JSON and as text', async () => {
    const { code, stdout } = await fathom(['plan', 'train', '--json']);
    expect(code).toBe(0);
    const { plan, estimate } = JSON.parse(stdout) as {
      plan: { pipeline: number };
      estimate: { stepSeconds: number };
    };
    expect(plan.pipeline).toBe(16);
    expect(estimate.stepSeconds).toBeGreaterThan(10);
    const timeline = join(folder, 'step.svg');
    const events = await fathom(['plan', 'train', '--timeline', timeline]);
    expect(events.stdout).toMatch(/^plan .*PP 16 \(dualpipe\)[\s\S]*both overlapped +\d/);
    expect(readFileSync(timeline, 'utf8')).toMatch(/^<svg /);
  });

  it('rejects a plan that cannot be, with the nearest that can', async () => {
    const { code, stderr } = await fathom(['plan', 'train', '--ep', '48']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/expert \(48\) must divide the 256 experts; the nearest is/);
    expect((await fathom(['plan', 'train', '--machine', 'h900'])).stderr).toMatch(
      /"h900" is not known; take one of/,
    );
  });

  it('searches a cluster described in a file, the same on two threads', async () => {
    const cluster = file('cluster.json', {
      name: 'ours',
      machine: 'h800',
      nodes: 2,
      scaleOutBytesPerSecond: 100e9,
      dollarsPerDeviceHour: 1.5,
    });
    const search = [
      'plan',
      'search',
      '--model',
      'llama-3.1-8b',
      '--machine',
      cluster,
      '--batch',
      '64',
      '--json',
    ];
    const [one, two] = await Promise.all([
      fathom([...search, '--threads', '1']),
      fathom([...search, '--threads', '2', '--svg', join(folder, 'front.svg')]),
    ]);
    const best = (run: typeof one) => (JSON.parse(run.stdout) as { ranked: unknown[] }).ranked[0];
    expect(best(one)).toBeDefined();
    expect(best(two)).toEqual(best(one));
    expect(readFileSync(join(folder, 'front.svg'), 'utf8')).toMatch(/^<svg /);
  });

  it('estimates serving, what-if and settings for another stack', async () => {
    const serve = await fathom(['plan', 'serve', '--nodes', '16', '--drafts', '1']);
    expect(serve.stdout).toMatch(/time per output token/);
    const whatIf = await fathom(['plan', 'what-if', '--only', 'co-processor']);
    expect(whatIf.stdout).toMatch(/Communication co-processor\s+−/);
    const least = await fathom([
      'plan',
      'search',
      '--objective',
      'tpot',
      '--min-rate',
      '500',
      '--nodes',
      '16',
    ]);
    expect(least.stdout).toMatch(/enumerated[\s\S]*time per token[\s\S]*front of time per token and yield/);
    const settings = await fathom(['plan', 'train', '--hand-over', 'torchtitan']);
    expect(settings.stdout).toContain('pipeline_parallel_degree = 16');
  });
});

describe('fathom paper', () => {
  it('recomputes what is asked for, writes the page, and says what there is', async () => {
    const page = join(folder, 'paper.html');
    const { code, stdout } = await fathom(['paper', '--only', 'table1,decode-limit', '--html', page]);
    expect(code).toBe(0);
    expect(stdout).toContain('ISCA table 1');
    expect(readFileSync(page, 'utf8')).toContain('<h2 id="decode-limit">');
    const wrong = await fathom(['paper', '--only', 'table9']);
    expect(wrong.code).toBe(1);
    expect(wrong.stderr).toMatch(/no part "table9"/);
  });
});

describe('fathom compare', () => {
  it('shows what differs, and fails beyond a bound', async () => {
    const [a, b] = [file('a.json', { step: 1, same: 2 }), file('b.json', { step: 1.2, same: 2 })];
    const { code, stdout } = await fathom(['compare', a, b, '--within', '0.1']);
    expect(code).toBe(1);
    expect(stdout).toMatch(/step\s+1\s+1\.2\s+\+20\.0 %/);
    expect(stdout).not.toContain('same');
    expect((await fathom(['compare', a, b, '--within', '0.3'])).code).toBe(0);
  });
});

describe('fathom calibrate', () => {
  it('says what a file lacks that holds no calibration', async () => {
    const { code, stderr } = await fathom([
      'calibrate',
      '--check',
      '--out',
      file('empty.json', { name: 'x' }),
    ]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/empty\.json: the constant device is missing/);
  });
});
