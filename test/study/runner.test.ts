import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { Progress, Stage } from '../../src/report/progress.js';
import { SILENT_UI, type Ui } from '../../src/report/ui.js';
import { analyse } from '../../src/study/analysis.js';
import type { Json } from '../../src/study/merge.js';
import { type Overrides, planStudy, type StudyPlan } from '../../src/study/plan.js';
import { ResultsFolder } from '../../src/study/results.js';
import { type RunnerOptions, runStudy } from '../../src/study/runner.js';
import { parseStudy } from '../../src/study/schema.js';
import { makeFolder } from '../text/folder.js';
import { goldenPath } from '../text/goldens.js';
import { quickStudy } from './study.js';

const FAKE = fileURLToPath(new URL('fake-trainer.mjs', import.meta.url));
const FILE = goldenPath('study.json');
/** The fake reads neither. */
const SHARED = { tokenizer: () => 'none', cache: 'none' };

const planOf = (change: Json = {}, overrides: Overrides = {}): StudyPlan =>
  planStudy(parseStudy(quickStudy(change), FILE), FILE, overrides);

/** A results folder and a fake trainer whose behaviour can be set. */
function bench() {
  const folder = makeFolder({ 'behaviour.json': '{}', log: '' });
  return {
    out: path.join(folder, 'out'),
    behave: (behaviour: Record<string, 'crash' | 'fail' | 'hang'>) =>
      writeFileSync(path.join(folder, 'behaviour.json'), JSON.stringify(behaviour)),
    started: () =>
      readFileSync(path.join(folder, 'log'), 'utf8')
        .trim()
        .split('\n')
        .map((line) => line.split(' ')[0]),
    log: () => readFileSync(path.join(folder, 'log'), 'utf8'),
    run(plan: StudyPlan, options: Partial<RunnerOptions> = {}, ui: Ui = SILENT_UI) {
      const results = ResultsFolder.start(this.out, plan);
      const fathom = [process.execPath, FAKE, folder];
      return runStudy(plan, results, SHARED, { fathom, jobs: 1, threads: 5, ...options }, ui);
    },
  };
}

/** A Ui that hands every detail of the progress to `onDetail`. */
function listening(onDetail: (detail: string) => void): Ui {
  const update = ({ details }: Stage) => details?.forEach(onDetail);
  const progress: Progress = { update, note: () => {}, end: () => {} };
  return { ...SILENT_UI, progress: () => progress };
}

describe('the runner', () => {
  it('starts a variant on ranks with mpirun, threads shared and its wire told', async () => {
    const test = bench();
    const ranks = { count: 2, perNode: 1, wire: 'fp8:bf16' };
    const variants = [
      { name: 'slow', title: 'One process' },
      { name: 'fast', title: 'Two ranks', ranks },
    ];
    const folder = makeFolder({ mpirun: '#!/bin/sh\nshift 2\nexec "$@"\n' });
    chmodSync(path.join(folder, 'mpirun'), 0o755);
    const before = process.env.PATH;
    process.env.PATH = `${folder}${path.delimiter}${before}`;
    const outcome = await test.run(planOf({ variants, seeds: [0] })).finally(() => {
      process.env.PATH = before;
    });
    expect(outcome).toMatchObject({ done: 2, failed: [] });
    expect(test.log()).toContain('fast.0 train --threads 2 --ranks-per-node 1 --wire fp8:bf16');
  });

  it('trains every variant with every seed once and keeps what was measured', async () => {
    const test = bench();
    const plan = planOf();
    expect(await test.run(plan)).toEqual({ done: 4, failed: [], stopped: false });
    expect(test.started()).toEqual(['slow.0', 'fast.0', 'slow.1', 'fast.1']);
    expect(test.log()).toContain('slow.0 train --threads 5');
    const record = ResultsFolder.open(test.out).read({ variant: 'fast', seed: 1 });
    expect(record).toMatchObject({ variant: 'fast', seed: 1, digest: plan.digest, threads: 5 });
    expect(record!.metrics).toMatchObject({
      validationLoss: 4.99,
      trainLoss: 7,
      tokensPerSecond: 200,
      // 2 sequences of 16 tokens.
      stepSeconds: 32 / 200,
      peakBytes: 1000,
      // (64 + 16) values of two bytes in three layers.
      cacheBytesPerToken: 480,
    });
    expect(record!.curves).toEqual({
      loss: [
        [1, 9],
        [4, 5],
      ],
      validationLoss: [[4, 4.99]],
    });
  });

  it('trains nothing again, and only what is new with further seeds', async () => {
    const test = bench();
    await test.run(planOf());
    expect(await test.run(planOf())).toMatchObject({ done: 0 });
    expect(await test.run(planOf({}, { seeds: [1, 5] }))).toMatchObject({ done: 2 });
    expect(test.started().slice(4)).toEqual(['slow.5', 'fast.5']);
    expect(ResultsFolder.open(test.out).study.seeds).toEqual([0, 1, 5]);
  });

  it('keeps what is done when a run dies or fails, and tries those again', async () => {
    const test = bench();
    test.behave({ 'fast.0': 'crash', 'slow.1': 'fail' });
    const { done, failed } = await test.run(planOf());
    expect(done).toBe(2);
    expect(failed).toEqual(['fast, seed 0: it ended with SIGKILL', 'slow, seed 1: the loss is NaN']);
    const results = ResultsFolder.open(test.out);
    const report = analyse({ ...pick(results), records: results.records() });
    expect(report.runs.failed).toEqual([
      { variant: 'slow', seed: 1, error: 'the loss is NaN' },
      { variant: 'fast', seed: 0, error: 'it ended with SIGKILL' },
    ]);
    // What is left of a variant that fails must not decide.
    expect(report.claims[0]).toMatchObject({ verdict: 'undecided', obstacle: 'run slow, seed 1 failed' });
    test.behave({});
    expect(await test.run(planOf())).toEqual({ done: 2, failed: [], stopped: false });
    expect(test.started().slice(4)).toEqual(['fast.0', 'slow.1']);
  });

  it('ends on a signal with the finished runs kept, and goes on later', async () => {
    const test = bench();
    test.behave({ 'fast.0': 'hang' });
    const ui = listening((detail) => {
      if (detail === 'fast, seed 0: hanging') process.emit('SIGINT');
    });
    expect(await test.run(planOf(), {}, ui)).toEqual({ done: 1, failed: [], stopped: true });
    expect(process.listenerCount('SIGINT')).toBe(0);
    test.behave({});
    expect(await test.run(planOf())).toMatchObject({ done: 3 });
    expect(test.started()).toEqual(['slow.0', 'fast.0', 'fast.0', 'slow.1', 'fast.1']);
  });

  it('shares the threads among runs at a time', async () => {
    const test = bench();
    expect(await test.run(planOf(), { jobs: 2 })).toMatchObject({ done: 4 });
    expect(
      test
        .log()
        .trim()
        .split('\n')
        .every((line) => line.endsWith('--threads 2')),
    ).toBe(true);
    expect([...test.started()].sort()).toEqual(['fast.0', 'fast.1', 'slow.0', 'slow.1']);
  });

  it('refuses to train what another process trains, but not what a dead one has left', async () => {
    const test = bench();
    const claimed = path.join(test.out, 'work', 'runs', 'fast.0.pid');
    ResultsFolder.start(test.out, planOf());
    mkdirSync(path.dirname(claimed), { recursive: true });
    writeFileSync(claimed, String(process.pid));
    await expect(test.run(planOf())).rejects.toThrow(
      `process ${process.pid} still trains ${claimed.slice(0, -4)}`,
    );
    expect(test.started()).toEqual(['slow.0']);
    writeFileSync(claimed, String(spawnSync(process.execPath, ['--version']).pid));
    expect(await test.run(planOf())).toMatchObject({ done: 3 });
    expect(existsSync(claimed)).toBe(false);
  });

  it('says why a program cannot be started', async () => {
    const test = bench();
    const { failed } = await test.run(planOf(), { fathom: ['/nowhere/node'] });
    expect(failed[0]).toContain('slow, seed 0: cannot start: spawn /nowhere/node ENOENT');
  });
});

const pick = ({ study, digest }: ResultsFolder) => ({ study, digest });

describe('the results folder', () => {
  it('is refused to another study, and nothing in it changes', async () => {
    const test = bench();
    await test.run(planOf());
    const before = snapshot(test.out);
    expect(() => ResultsFolder.start(test.out, planOf({}, { steps: 5 }))).toThrow(
      `${test.out} holds results of another study ("rates", or this one before it was changed)`,
    );
    expect(snapshot(test.out)).toEqual(before);
  });

  it('is not made where other things are', () => {
    const folder = makeFolder({ 'thesis.txt': 'years of work' });
    expect(() => ResultsFolder.start(folder, planOf())).toThrow(`${folder} is not empty and holds no study`);
    expect(readdirSync(folder)).toEqual(['thesis.txt']);
  });

  it('names results that are damaged or foreign', async () => {
    const test = bench();
    await test.run(planOf());
    const file = path.join(test.out, 'results', 'slow.0.json');
    const record = JSON.parse(readFileSync(file, 'utf8')) as object;
    const read = () => ResultsFolder.open(test.out).records();
    writeFileSync(file, JSON.stringify({ ...record, digest: 'other' }));
    expect(read).toThrow(`${file} is a result of another study`);
    writeFileSync(file, JSON.stringify({ ...record, metrics: { validationLoss: null } }));
    expect(read).toThrow(`${file} is no result of this version: field metrics.validationLoss`);
    writeFileSync(file, '{"version":1');
    expect(read).toThrow(`${file} is not valid JSON`);
  });

  it('is missing where nothing was run', () => {
    const folder = makeFolder();
    expect(() => ResultsFolder.open(folder)).toThrow(`${folder} holds no results of a study`);
    expect(existsSync(path.join(folder, 'study.json'))).toBe(false);
  });
});

/** Every file of a folder with its content. */
const snapshot = (folder: string): Record<string, string> =>
  Object.fromEntries(
    readdirSync(folder, { recursive: true, encoding: 'utf8', withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => path.join(entry.parentPath, entry.name))
      .map((file) => [file, readFileSync(file, 'utf8')]),
  );
