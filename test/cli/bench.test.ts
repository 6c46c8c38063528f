import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { addonProblem, loadAddon } from '../../src/backend/native/addon.js';
import type { KernelReport } from '../../src/bench/kernels.js';
import type { PlanReport } from '../../src/bench/plan.js';
import { fathom, fathomJson } from './run.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'fathom-bench-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const addon = loadAddon();

describe('fathom bench', () => {
  it.skipIf(!addon)(
    `measures a kernel and keeps the result (${addon ? 'native' : addonProblem()})`,
    async () => {
      const out = path.join(folder, 'results', 'kernels.json');
      const flags = ['--only', 'sum of squares', '--threads', '1', '--out', out];
      const report = (await fathomJson(['bench', 'kernels', ...flags])) as unknown as KernelReport;
      expect(JSON.parse(readFileSync(out, 'utf8'))).toEqual(report);
      expect(report.kernels.map(({ name, threads }) => [name, threads])).toEqual([['sum of squares', 1]]);
      expect(report.kernels[0]!.share).toBeGreaterThan(0);
      expect(report.ceilings.map(({ threads }) => threads)).toEqual([1]);
      expect(report.ceilings[0]!.read).toBeGreaterThan(0);
      expect(report.machine.isa).toBe(addon!.info().isa);
    },
  );

  it.skipIf(!addon)('says which kernels there are when none matches', async () => {
    const out = path.join(folder, 'kernels.json');
    const { code, stderr } = await fathom(['bench', 'kernels', '--only', 'nonsense', '--out', out]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^fathom: --only nonsense matches no kernel; .*\n$/);
    expect(existsSync(out)).toBe(false);
  });

  it('measures the planner', async () => {
    const out = path.join(folder, 'plan.json');
    const report = await fathomJson(['bench', 'plan', '--plans', '2000', '--no-peers', '--out', out]);
    expect(JSON.parse(readFileSync(out, 'utf8'))).toEqual(report);
    const { search, command, peers } = report as unknown as PlanReport;
    // Two threads predict half of them each.
    expect([search.predicted, command.predicted, peers]).toEqual([2000, 2000, []]);
    expect(search.secondsEach).toBeGreaterThan(0);
  });

  it('refuses an unknown model as wrong use', async () => {
    const { code, stderr } = await fathom(['bench', 'train', '--model', 'deepseek-v3']);
    expect(code).toBe(2);
    expect(stderr).toContain('Allowed choices are mini, small');
  });
});
